//! The images that are kept, as people see them.
//!
//! Owns: what they are called, and what a name stands for when one is to be removed.
//! Reads: the images, and what is made of them.
//! Never: removes what a sandbox is made of.

use std::path::Path;

use super::agent_image::{making, reading};
use super::image_store::{ImageStore, Stored};
use super::images;
use crate::agent_image::{AgentImageError, ListedImage, recipe, to_the_second};

/// Returns an image under each of its names, or under what it was made of.
pub(super) fn listed(image: Stored) -> Vec<ListedImage> {
    let mut references = image.names;
    if references.is_empty() {
        let archive = image.note.archive.as_ref();
        references.push(archive.map_or(image.id.clone(), |path| path.display().to_string()));
    }
    let id = match &image.note.agent {
        Some(agent) => format!("sha256:{}", agent.recipe),
        None => format!("sha256:{}", image.id),
    };
    let created = image.note.made.map(to_the_second);
    let agent = image.note.agent;
    let rows = references.into_iter().map(|reference| ListedImage {
        reference,
        id: id.clone(),
        agent: agent.as_ref().map(|agent| agent.agent.clone()),
        agent_version: agent.as_ref().map(|agent| agent.version.clone()),
        base: agent.as_ref().map(|agent| agent.base.clone()),
        created: created.clone(),
        bytes: i64::try_from(image.note.bytes).unwrap_or(i64::MAX),
    });
    rows.collect()
}

/// Removes what a name stands for; returns the names that are gone. Blocks until nobody makes an image.
pub(super) fn remove(store: &ImageStore, asked: &str) -> Result<Vec<String>, AgentImageError> {
    let alone = store.alone().map_err(making)?;
    let images = store.list().map_err(reading)?;
    let full = images::with_tag(asked);
    let prefix = recipe(asked).map(|recipe| format!("{}:", recipe.repository()));
    // What of an image is asked for: names, or all of it.
    let mut going = Vec::new();
    for image in &images {
        let is_asked = |name: &&String| match &prefix {
            Some(prefix) => name.starts_with(prefix),
            None => **name == full,
        };
        let names: Vec<&String> = image.names.iter().filter(is_asked).collect();
        let archive = image.note.archive.as_deref();
        // One that a sandbox had when it lost its names has none.
        let is_left = image.names.is_empty()
            && prefix.is_some()
            && image
                .note
                .agent
                .as_ref()
                .is_some_and(|note| note.agent == asked);
        let is_itself = asked.strip_prefix("sha256:").unwrap_or(asked) == image.id
            || archive.is_some_and(|path| path == Path::new(asked))
            || is_left;
        if is_itself || !names.is_empty() {
            going.push((image, names, is_itself));
        }
    }
    if going.is_empty() {
        return Err(AgentImageError::NoSuchImage {
            name: asked.to_owned(),
        });
    }
    let users = store.users().map_err(reading)?;
    let mut removed = Vec::new();
    let mut ids = Vec::new();
    for (image, names, is_itself) in &going {
        if let Some(attempts) = users.get(&image.id) {
            let runs = attempts
                .iter()
                .map(|attempt| format!("run {}", attempt.run()));
            return Err(AgentImageError::InUse {
                name: names.first().map_or(asked, |name| name.as_str()).to_owned(),
                users: runs.collect::<Vec<_>>().join(", "),
            });
        }
        if *is_itself || names.len() == image.names.len() {
            ids.push(image.id.clone());
        }
        let all = if *is_itself {
            image.names.iter().collect()
        } else {
            names.clone()
        };
        match all.is_empty() {
            true if prefix.is_some() => removed.push((image.id.clone(), None)),
            true => removed.push((asked.to_owned(), None)),
            false => removed.extend(all.into_iter().map(|name| (name.clone(), Some(name)))),
        }
    }
    for name in removed.iter().filter_map(|(_, name)| *name) {
        store.forget(name, &alone).map_err(making)?;
    }
    store.discard(alone, &ids).map_err(making)?;
    Ok(removed.into_iter().map(|(shown, _)| shown).collect())
}
