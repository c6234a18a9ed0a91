//! What a running container uses.
//!
//! Owns: which of the engine's numbers is which of ours.
//! Reads: one answer of the engine.
//! Never: computes a rate: that takes two answers.

use std::time::Duration;

use bollard::models::{ContainerBlkioStatEntry, ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use dark_factory_executor::engine::{EngineError, Traffic, Usage};
use dark_factory_types::ByteSize;
use futures_util::StreamExt;

use super::client::USAGE;
use super::container::{Container, Phase, phase};

/// What the kernel could drop at once, by its name under cgroup v1 and v2.
const DROPPABLE: [&str; 2] = ["total_inactive_file", "inactive_file"];

/// Measures what a container uses.
pub(super) async fn usage(container: &Container) -> Result<Usage, EngineError> {
    let client = &container.client;
    let docker = client.docker().await?;
    let options = StatsOptionsBuilder::default()
        .stream(false)
        .one_shot(true)
        .build();
    let mut answers = Box::pin(docker.stats(&container.id, Some(options)));
    let answer = async { answers.next().await.transpose() };
    let stats = match client.call(USAGE, answer).await {
        Ok(Some(stats)) => stats,
        Ok(None) => return Err(or_gone(container, client.cut(USAGE)).await),
        Err(fault) => {
            let error = container.error(fault).await;
            return Err(or_gone(container, error).await);
        }
    };
    // One that has ended is measured too, as having nothing.
    read(&stats).ok_or_else(|| EngineError::NoSuchContainer {
        name: container.name.clone(),
    })
}

/// Returns the error for a container that was not measured: Podman measures none that has ended.
async fn or_gone(container: &Container, error: EngineError) -> EngineError {
    match container.state().await {
        Ok(state) if phase(&state) == Phase::Ended => EngineError::NoSuchContainer {
            name: container.name.clone(),
        },
        _ => error,
    }
}

/// Reads an answer; `None` if nothing was measured.
fn read(stats: &ContainerStatsResponse) -> Option<Usage> {
    let cpu = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let memory = stats.memory_stats.as_ref()?;
    let network = stats.networks.as_ref().map(|networks| {
        let sum = |bytes: Option<u64>, sum: &mut ByteSize| sum.0 += bytes.unwrap_or_default();
        let mut traffic = Traffic::default();
        for network in networks.values() {
            sum(network.rx_bytes, &mut traffic.inward);
            sum(network.tx_bytes, &mut traffic.outward);
        }
        traffic
    });
    let block = stats
        .blkio_stats
        .as_ref()
        .and_then(|block| block.io_service_bytes_recursive.as_deref())
        .map(block);
    Some(Usage {
        at: stats.read.as_ref()?.parse().ok()?,
        cpu: Duration::from_nanos(cpu),
        memory: used(memory)?,
        memory_limit: memory.limit.map(ByteSize),
        memory_peak: memory.max_usage.filter(|peak| *peak > 0).map(ByteSize),
        pids: stats.pids_stats.as_ref().and_then(|pids| pids.current),
        network,
        block,
    })
}

fn used(memory: &ContainerMemoryStats) -> Option<ByteSize> {
    let details = memory.stats.as_ref();
    let droppable = DROPPABLE
        .iter()
        .find_map(|name| details?.get(*name))
        .copied();
    let usage = memory.usage?;
    Some(ByteSize(
        usage.saturating_sub(droppable.unwrap_or_default()),
    ))
}

fn block(entries: &[ContainerBlkioStatEntry]) -> Traffic {
    let mut traffic = Traffic::default();
    for entry in entries {
        let bytes = entry.value.unwrap_or_default();
        match entry.op.as_deref() {
            Some(op) if op.eq_ignore_ascii_case("read") => traffic.inward.0 += bytes,
            Some(op) if op.eq_ignore_ascii_case("write") => traffic.outward.0 += bytes,
            _ => {}
        }
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(answer: serde_json::Value) -> Option<Usage> {
        read(&serde_json::from_value(answer).unwrap())
    }

    #[test]
    fn memory_is_what_the_kernel_could_not_drop_and_traffic_is_summed() {
        let usage = usage(serde_json::json!({
            "read": "2026-11-28T13:00:00.5Z",
            "cpu_stats": { "cpu_usage": { "total_usage": 1_500_000_000_u64 } },
            "memory_stats": { "usage": 100, "max_usage": 150, "limit": 200, "stats": { "inactive_file": 30 } },
            "pids_stats": { "current": 3 },
            "networks": { "eth0": { "rx_bytes": 1, "tx_bytes": 2 }, "eth1": { "rx_bytes": 10, "tx_bytes": 20 } },
            "blkio_stats": { "io_service_bytes_recursive": [
                { "op": "Read", "value": 5 }, { "op": "write", "value": 6 }, { "op": "Total", "value": 11 }
            ] },
        }))
        .unwrap();

        assert_eq!(usage.cpu, Duration::from_millis(1500));
        assert_eq!(
            (usage.memory, usage.memory_peak),
            (ByteSize(70), Some(ByteSize(150)))
        );
        let network = usage.network.unwrap();
        assert_eq!(
            (network.inward, network.outward),
            (ByteSize(11), ByteSize(22))
        );
        let block = usage.block.unwrap();
        assert_eq!((block.inward, block.outward), (ByteSize(5), ByteSize(6)));
    }

    #[test]
    fn one_that_has_ended_uses_nothing() {
        let ended = serde_json::json!({ "read": "0001-01-01T00:00:00Z", "cpu_stats": {}, "memory_stats": {} });

        assert_eq!(usage(ended), None);
    }
}
