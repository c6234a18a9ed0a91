//! One run's crowd of connections is no other run's trouble.

use dark_factory_guard::{Ask, EGRESS_SOCKET};
use dark_factory_types::{Budget, Provider};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::lab::{ATTEMPT, Lab, Reply};

#[tokio::test]
async fn ten_thousand_connections_and_slow_heads_on_one_way_do_not_keep_another_from_answering() {
    let mut lab = Lab::new().await;
    let mut client = lab.open(Budget::default()).await;
    let other = "k3v9x2m7qa1c-1";
    let way = lab.way_of(
        other,
        vec![lab.broker(Provider::Anthropic)],
        Budget::default(),
    );
    client.ask(&Ask::Open(way)).await.unwrap();
    let crowded = lab.state.path().join(other).join(EGRESS_SOCKET);
    // As many as stay open is up to the queue of the socket; the rest is turned away at the door.
    let mut crowd = Vec::new();
    for _ in 0..10_000 {
        if let Ok(mut stream) = UnixStream::connect(&crowded).await {
            // A head that never ends.
            let _sent = stream
                .write_all(b"POST /anthropic/v1/messages HTTP/1.1\r\nx:")
                .await;
            if crowd.len() < 300 {
                crowd.push(stream);
            }
        }
    }
    lab.upstream.says(Reply::json("{}"));

    let answer = lab.post("/anthropic/v1/messages", "{}").await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_ne!(other, ATTEMPT);
    assert!(!crowd.is_empty());
}
