//! `image`: the images of agents.
//!
//! Owns: what is printed about them.
//! Reads: flags.
//! Never: knows how an image is made.

use dark_factory_engines::agent_image::{
    AgentFiles, AgentImageError, AgentImageRequest, Base, BuildProgress, BuiltImage, ListedImage,
    Rebuild, recipe,
};
use dark_factory_engines::docker::agent_image::AgentImages;
#[cfg(target_os = "linux")]
use dark_factory_engines::sandbox::SandboxImages;
use std::path::Path;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_types::exit_code;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Format;
use crate::args::{ImageBuildArgs, ImageCommand, ImageRmArgs};
use crate::context::Context;
use crate::error::CommandError;
use crate::interrupt::{Interrupts, Reaction};
use crate::tell;
use crate::terminal;

/// The base that is no image.
const DEBOOTSTRAP: &str = "debootstrap";

/// The images of the chosen engine.
enum Images {
    Docker(AgentImages),
    #[cfg(target_os = "linux")]
    Sandbox(SandboxImages),
}

impl Images {
    fn of(context: &Context) -> Result<Self, CommandError> {
        #[cfg(target_os = "linux")]
        if let Some(images) = context.sandbox_images()? {
            return Ok(Self::Sandbox(images));
        }
        Ok(Self::Docker(context.agent_images()?))
    }

    async fn build(
        &self,
        request: &AgentImageRequest,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<BuiltImage, AgentImageError> {
        match self {
            Self::Docker(images) => images.build(request, cancel, progress).await,
            #[cfg(target_os = "linux")]
            Self::Sandbox(images) => images.build(request, cancel, progress).await,
        }
    }

    async fn list(&self) -> Result<Vec<ListedImage>, AgentImageError> {
        match self {
            Self::Docker(images) => images.list().await,
            #[cfg(target_os = "linux")]
            Self::Sandbox(images) => images.list(),
        }
    }

    async fn remove(&self, name: &str) -> Result<Vec<String>, AgentImageError> {
        match self {
            Self::Docker(images) => images.remove(name).await,
            #[cfg(target_os = "linux")]
            Self::Sandbox(images) => images.remove(name).await,
        }
    }
}

pub(crate) async fn image(
    context: &Context,
    command: &ImageCommand,
    format: Format,
) -> Result<u8, CommandError> {
    match command {
        ImageCommand::Build(args) => build(context, args, format).await,
        ImageCommand::List => list(context, format).await,
        ImageCommand::Rm(args) => rm(context, args, format).await,
    }
}

async fn build(
    context: &Context,
    args: &ImageBuildArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let recipe = recipe(&args.agent).ok_or_else(|| AgentImageError::UnknownAgent {
        agent: args.agent.clone(),
    })?;
    let request = AgentImageRequest {
        recipe,
        files: match &args.from {
            Some(path) => AgentFiles::At(context.host.absolute(path)),
            None => AgentFiles::Pinned,
        },
        base: match args.base.as_deref() {
            None => Base::Automatic,
            Some(DEBOOTSTRAP) => Base::Debootstrap,
            Some(image) => Base::Image(base(context, image)),
        },
        tag: args.tag.clone(),
        rebuild: if args.force {
            Rebuild::Always
        } else {
            Rebuild::IfOutdated
        },
        cache_dir: context.cache_dir()?,
        temp_dir: std::env::temp_dir(),
        created: SystemClock.now(),
    };
    let interrupts = Interrupts::listen(Reaction::Detach)?;
    let cancel = CancellationToken::new();
    let images = Images::of(context)?;
    let mut progress = |line: &str| {
        tell::progress(line);
    };
    let mut building = Box::pin(images.build(&request, &cancel, &mut progress));
    let built = tokio::select! {
        built = &mut building => built,
        () = interrupts.detached() => {
            cancel.cancel();
            tell::progress("interrupted; removing what was begun");
            building.await
        }
    }?;
    match format {
        Format::Json => terminal::print_json(&built),
        Format::Text => {
            let names = built.references.join(" and ");
            let title = recipe.title;
            let version = &built.agent_version;
            terminal::print(&if built.built {
                format!("built {names}: {title} {version}\n")
            } else {
                format!("{names} is up to date: {title} {version} (--force makes it anew)\n")
            });
        }
    }
    Ok(exit_code::SUCCEEDED)
}

/// Returns a base as its engine takes it: what stands there as a path is one of this machine.
fn base(context: &Context, image: &str) -> String {
    let is_path = image.starts_with(['.', '/']);
    match is_path {
        true => context
            .host
            .absolute(Path::new(image))
            .display()
            .to_string(),
        false => image.to_owned(),
    }
}

async fn list(context: &Context, format: Format) -> Result<u8, CommandError> {
    let images = Images::of(context)?.list().await?;
    match format {
        Format::Json => images.iter().for_each(terminal::print_json),
        Format::Text if images.is_empty() => {
            terminal::print("no images; `dark-factory image build claude` makes one\n");
        }
        Format::Text => {
            let head = ["IMAGE", "AGENT", "VERSION", "BASE", "CREATED", "SIZE"].map(str::to_owned);
            let rows = images.into_iter().map(row);
            terminal::print(&terminal::table(std::iter::once(head).chain(rows)));
        }
    }
    Ok(exit_code::SUCCEEDED)
}

fn row(image: ListedImage) -> [String; 6] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        image.reference,
        or_none(image.agent),
        or_none(image.agent_version),
        or_none(image.base),
        or_none(image.created),
        format!("{} MB", image.bytes / 1_000_000),
    ]
}

async fn rm(context: &Context, args: &ImageRmArgs, format: Format) -> Result<u8, CommandError> {
    let images = Images::of(context)?;
    let mut codes = Vec::new();
    for name in &args.names {
        match images.remove(name).await {
            Ok(references) => {
                for reference in references {
                    match format {
                        Format::Json => terminal::print_json(&json!({ "removed": reference })),
                        Format::Text => terminal::print(&format!("removed {reference}\n")),
                    }
                }
            }
            Err(error) => {
                let error = CommandError::from(error);
                error.print();
                codes.push(error.code());
            }
        }
    }
    Ok(exit_code::combine(codes))
}
