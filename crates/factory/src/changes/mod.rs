//! What an attempt changed in its git workspace, as a patch.
//!
//! Owns: the baseline, the comparison with it, `changes.patch` and `changes.stat`.
//! Reads: the workspace; the project's repository, as data.
//! Never: writes into the project, executes what it says, or believes an object of it that its name does not prove.
//!
//! A baseline is an index in a git folder of ours that says what each file holds; the project's own index only names
//! files. It is kept for the project's next attempt, which reads only what was changed since. Afterwards a copy shows
//! which files differ. The patch is made from two small trees with only these, whose contents we hashed ourselves or
//! checked against their names.

mod git;
mod kept;
mod listing;
mod repository;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_executor::host::HostView;
use dark_factory_executor::recorder::{Recorded, Room, Touched, WorkspaceRecorder};
use dark_factory_executor::spec::AttemptDir;
use dark_factory_executor::state_dir::write_durably;
use dark_factory_types::{ByteSize, ChangedFile, Changes};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::time::{Instant, timeout_at};

use crate::obeyed::Obeyed;
use git::{Git, GitError};
use kept::{KeptIndexes, copy_with_time};
pub use kept::{Unused, UnusedIndex};
use listing::{Differences, GitPath, Index, LeftOut, Sorted};
use repository::{Repository, Taken};

/// How long a baseline, or the comparison with it, may take unless something else is asked for.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The largest file that is looked into.
const LARGEST_FILE: u64 = 64 << 20;

/// The largest patch that is kept.
const LARGEST_PATCH: u64 = 64 << 20;

/// The most that is stored of files that git does not know yet, or that were changed.
const MOST_BYTES: u64 = 1 << 30;

/// How many changed files a report names.
const NAMED_FILES: usize = 100;

/// The folder of ours in an attempt's folder.
const FOLDER: &str = "changes.git";

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
enum ChangesError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("its files cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("its record cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("its files could not be read in time")]
    TimedOut,
    #[error("an object of it is not what its name says")]
    Forged,
    #[error("{} of files would have to be kept, and {} are the most", ByteSize(*.bytes), ByteSize(MOST_BYTES))]
    TooMuch { bytes: u64 },
}

impl ChangesError {
    fn room(&self) -> Room {
        let is_full = match self {
            Self::Io(error) | Self::Git(GitError::Io { source: error, .. }) => matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            // Git has no other way to say it.
            Self::Git(GitError::Failed { complaint, .. }) => {
                ["No space left on device", "Disk quota exceeded"]
                    .iter()
                    .any(|words| complaint.contains(words))
            }
            _ => false,
        };
        if is_full { Room::Missing } else { Room::Enough }
    }
}

/// What is kept of a baseline beside its index.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// Whether there is something to compare with.
    state: State,
    /// The project's objects.
    objects: PathBuf,
    /// Files that are not looked into.
    left_out: Vec<LeftOut>,
    /// What later commands obey; `None` in one of an earlier version.
    #[serde(default)]
    obeyed: Option<Obeyed>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Recorded,
    NoRepository,
    Failed(String),
}

/// Records changes with the host's git.
#[derive(Debug, Clone)]
pub struct GitChanges {
    host: HostView,
    kept: KeptIndexes,
    time_limit: Duration,
}

impl GitChanges {
    /// Uses the git that the host's `PATH` names, outside of what an agent can write to, and keeps what it knows of
    /// projects in a state folder.
    pub fn new(host: HostView, state_dir: &Path) -> Self {
        Self {
            host,
            kept: KeptIndexes::new(state_dir),
            time_limit: TIME_LIMIT,
        }
    }

    /// Returns the same, for which a baseline, or the comparison with it, may take this long.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Makes a baseline in a new folder.
    async fn record(&self, touched: &Touched, folder: &Path) -> Result<Baseline, ChangesError> {
        let project = &touched.workspace;
        let deadline = Instant::now() + self.time_limit;
        let (index, theirs) = (folder.join("index"), folder.join("theirs"));
        let (host, root) = (self.host.clone(), project.clone());
        let (ours, copy) = (folder.to_owned(), theirs.clone());
        let prepare =
            move || Repository::find(&root, &host).map(|found| found.take(&host, &ours, &copy));
        let Some(taken) = blocking(deadline, prepare).await? else {
            return Ok(Baseline {
                state: State::NoRepository,
                ..Baseline::default()
            });
        };
        let Taken { objects, format } = taken?;
        let git = Git::find(&self.host, folder, touched, &objects, deadline)?;
        let kept = self.kept.of(project, format);
        kept.copy_to(&index)?;
        let refresh = Refresh {
            git: &git,
            index: &index,
            project,
        };
        let left_out = match refresh.baseline(&theirs).await {
            // An index that git cannot use is as good as none.
            Err(ChangesError::Git(GitError::Failed { .. })) if index.exists() => {
                fs::remove_file(&index)?;
                refresh.baseline(&theirs).await?
            }
            result => result?,
        };
        if let Err(error) = kept.replace_with(&index) {
            tracing::warn!(%error, "the next attempt in this project will read all files");
        }
        Ok(Baseline {
            state: State::Recorded,
            objects,
            left_out,
            obeyed: None,
        })
    }

    /// Compares the workspace with the baseline in `folder`.
    async fn compare(
        &self,
        touched: &Touched,
        folder: &Path,
        dir: &AttemptDir,
    ) -> Result<Recorded, ChangesError> {
        let project = &touched.workspace;
        let deadline = Instant::now() + self.time_limit;
        let baseline: Baseline = serde_json::from_slice(&fs::read(folder.join("baseline.json"))?)?;
        match baseline.state {
            State::Recorded => {}
            State::NoRepository => return Ok(unknown("not a git project", None)),
            State::Failed(why) => {
                return Ok(failed(
                    "there is no record of the project as it was before",
                    &why,
                ));
            }
        }
        let git = Git::find(&self.host, folder, touched, &baseline.objects, deadline)?;
        // Another process may have died over it, and its git may still be at work.
        let scratch = tempfile::tempdir_in(folder)?;
        let index = scratch.path().join("index");
        let before = folder.join("index");
        if before.exists() {
            let (before, index) = (before.clone(), index.clone());
            blocking(deadline, move || copy_with_time(&before, &index)).await??;
        }
        let refresh = Refresh {
            git: &git,
            index: &index,
            project,
        };
        let sorted = refresh.sort(refresh.changed().await?).await?;
        let comparison = Comparison {
            git: &git,
            scratch: &scratch,
            dir,
        };
        let mut recorded = match refresh.apply(&sorted, Contents::Stored).await? {
            Applied::Nothing => no_changes(),
            Applied::Something => {
                let old = refresh.listing(&before);
                let new = refresh.listing(&index);
                let (old, new) = tokio::try_join!(old, new)?;
                comparison.make(&listing::differences(old, new)).await?
            }
        };
        let left_out = sorted.left_out.iter();
        let left_out = left_out
            .filter(|file| !baseline.left_out.contains(file))
            .count();
        add_notes(&mut recorded.changes, left_out, sorted.nested);
        Ok(recorded)
    }
}

#[async_trait]
impl WorkspaceRecorder for GitChanges {
    async fn before(&self, touched: &Touched, dir: &AttemptDir) {
        if let Err(error) = self.try_before(touched, dir).await {
            tracing::warn!(%error, "what this attempt changes will not be known");
        }
    }

    fn is_recorded(&self, dir: &AttemptDir) -> bool {
        dir.path().join(FOLDER).exists()
    }

    async fn after(&self, touched: &Touched, dir: &AttemptDir) -> Recorded {
        let folder = dir.path().join(FOLDER);
        // What an earlier try left is not of this one.
        remove_results(dir);
        if !folder.exists() {
            return unknown("there is no record of the project as it was before", None);
        }
        let recorded = match self.compare(touched, &folder, dir).await {
            Ok(recorded) => recorded,
            Err(error) => {
                remove_results(dir);
                let what = "what was changed could not be found out";
                Recorded {
                    room: error.room(),
                    ..failed(what, &error.to_string())
                }
            }
        };
        Recorded {
            obeyed: self.obeyed(touched, &folder).await,
            ..recorded
        }
    }

    fn forget(&self, dir: &AttemptDir) -> io::Result<()> {
        let entries = match fs::read_dir(dir.path()) {
            // Somebody deleted the attempt's folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(FOLDER) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

impl GitChanges {
    /// Looks at what later commands obey.
    async fn look_at_obeyed(&self, touched: &Touched) -> Obeyed {
        let project = touched.workspace.clone();
        let deadline = Instant::now() + self.time_limit;
        match blocking(deadline, move || Obeyed::of(&project)).await {
            Ok(obeyed) => obeyed,
            Err(error) => Obeyed::Unknown(error.to_string()),
        }
    }

    /// Says what was changed of what later commands obey.
    async fn obeyed(&self, touched: &Touched, folder: &Path) -> Option<String> {
        let baseline = fs::read(folder.join("baseline.json")).ok()?;
        // That it cannot be read is told with the patch that there is not.
        let baseline: Baseline = serde_json::from_slice(&baseline).ok()?;
        baseline
            .obeyed?
            .difference(&self.look_at_obeyed(touched).await)
    }

    async fn try_before(&self, touched: &Touched, dir: &AttemptDir) -> Result<(), ChangesError> {
        let new = tempfile::Builder::new()
            .prefix(&format!("{FOLDER}."))
            .tempdir_in(dir.path())?;
        let mut baseline = match self.record(touched, new.path()).await {
            Ok(baseline) => baseline,
            Err(error) => Baseline {
                state: State::Failed(error.to_string()),
                ..Baseline::default()
            },
        };
        baseline.obeyed = Some(self.look_at_obeyed(touched).await);
        fs::write(
            new.path().join("baseline.json"),
            serde_json::to_vec(&baseline)?,
        )?;
        let folder = dir.path().join(FOLDER);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::rename(new.path(), &folder)?;
        // It has its name, and is not to go with this value.
        let _kept = new.keep();
        Ok(())
    }
}

/// Whether an index was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    Nothing,
    Something,
}

/// What becomes of the contents of files that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// Only their names are known afterwards.
    Hashed,
    /// They are in our own folder.
    Stored,
}

/// Brings an index up to date with the workspace.
#[derive(Debug)]
struct Refresh<'a> {
    git: &'a Git,
    index: &'a Path,
    project: &'a Path,
}

impl Refresh<'_> {
    /// Makes the index say what the workspace holds, byte for byte; `theirs` is a copy of the project's own index.
    async fn baseline(&self, theirs: &Path) -> Result<Vec<LeftOut>, ChangesError> {
        let (known, tracked, ignored, mut read) = tokio::try_join!(
            self.listing(self.index),
            self.tracked(theirs),
            self.paths(self.index, &["--cached", "--ignored", "--exclude-standard"]),
            self.changed(),
        )?;
        // Git keeps a file that it tracks although it is ignored.
        let new = tracked
            .iter()
            .filter(|path| !known.files.contains_key(*path));
        read.extend(new.cloned());
        let mut hashed = self.sort(read).await?;
        hashed.remove.extend(ignored.difference(&tracked).cloned());
        self.apply(&hashed, Contents::Hashed).await?;
        // Contents that the project's git has as well need no second place.
        let unknown = self.unknown().await?;
        let mut stored = self.sort(unknown.clone()).await?;
        stored.remove.extend(unknown);
        self.apply(&stored, Contents::Stored).await?;
        hashed.left_out.extend(stored.left_out);
        Ok(hashed.left_out)
    }

    /// Lists what is in an index of ours.
    async fn listing(&self, index: &Path) -> Result<Index, ChangesError> {
        let list = self.git.call("list what it knows", index);
        let list = list.args(["ls-files", "-s", "-z"]).output().await?;
        Ok(Index::parse(&list))
    }

    /// Lists the files that the project's own index names. Nothing else that it says is believed.
    async fn tracked(&self, theirs: &Path) -> Result<BTreeSet<GitPath>, ChangesError> {
        match self.paths(theirs, &["--cached"]).await {
            // It is rubbish.
            Err(ChangesError::Git(GitError::Failed { .. })) => Ok(BTreeSet::new()),
            result => result,
        }
    }

    /// Lists what in the workspace is not as the index says, and not ignored.
    async fn changed(&self) -> Result<BTreeSet<GitPath>, ChangesError> {
        let what = ["--others", "--modified", "--exclude-standard"];
        self.paths(self.index, &what).await
    }

    async fn paths(&self, index: &Path, what: &[&str]) -> Result<BTreeSet<GitPath>, ChangesError> {
        let list = self.git.call("compare the workspace", index);
        let list = list.args(["ls-files", "-z"]).args(what).output().await?;
        Ok(listing::split(&list).map(<[u8]>::to_vec).collect())
    }

    /// Lists the files whose contents are neither among the project's objects nor among ours.
    async fn unknown(&self) -> Result<BTreeSet<GitPath>, ChangesError> {
        let index = self.listing(self.index).await?;
        let look = self.git.call("look for what is known", self.index);
        let objects = index
            .files
            .values()
            .flat_map(|entry| [&entry.object, b"\n".as_slice()]);
        let found = look
            .with_project_objects()
            .args(["cat-file", "--buffer", "--batch-check=%(objecttype)"])
            .input(objects.collect::<Vec<_>>().concat())
            .output()
            .await?;
        let found = found.split(|byte| *byte == b'\n');
        let files = index.files.into_keys().zip(found);
        let unknown = files.filter(|(_, found)| found.ends_with(b"missing"));
        Ok(unknown.map(|(path, _)| path).collect())
    }

    /// Looks at what stands at each path.
    async fn sort(&self, paths: BTreeSet<GitPath>) -> Result<Sorted, ChangesError> {
        let project = self.project.to_owned();
        let sort = move || listing::sort(&project, paths, LARGEST_FILE);
        blocking(self.git.deadline(), sort).await
    }

    /// Reads into the index what was found.
    async fn apply(&self, sorted: &Sorted, contents: Contents) -> Result<Applied, ChangesError> {
        if contents == Contents::Stored && sorted.bytes > MOST_BYTES {
            return Err(ChangesError::TooMuch {
                bytes: sorted.bytes,
            });
        }
        let mut applied = Applied::Nothing;
        for (how, paths) in [
            ("--force-remove", &sorted.remove),
            ("--replace", &sorted.update),
        ] {
            if paths.is_empty() {
                continue;
            }
            let update = self.git.call("read the changed files", self.index);
            update
                .args(["update-index"])
                .args((contents == Contents::Hashed).then_some("--info-only"))
                .args(["--add", "--remove", how, "-z", "--stdin"])
                .input(listing::join(paths))
                .output()
                .await?;
            applied = Applied::Something;
        }
        Ok(applied)
    }
}

/// Makes the patch and the numbers from what differs.
#[derive(Debug)]
struct Comparison<'a> {
    git: &'a Git,
    scratch: &'a TempDir,
    dir: &'a AttemptDir,
}

impl Comparison<'_> {
    async fn make(&self, differences: &Differences) -> Result<Recorded, ChangesError> {
        if differences.is_empty() {
            return Ok(no_changes());
        }
        if let Err(error) = self.fetch_old(differences).await {
            if error.room() == Room::Missing {
                return Err(error);
            }
            let mut recorded = failed("what was there before cannot be used", &error.to_string());
            recorded.changes.files = Some(differences.len() as u64);
            return Ok(recorded);
        }
        let old = self.scratch.path().join("old");
        let new = self.scratch.path().join("new");
        let all = differences.iter();
        let old_info = listing::index_info(all.clone().map(|(path, pair)| (path, &pair.0)));
        let new_info = listing::index_info(all.map(|(path, pair)| (path, &pair.1)));
        tokio::try_join!(self.fill(&old, old_info), self.fill(&new, new_info))?;
        let tree = self.git.call("make a tree", &old);
        let tree = tree.args(["write-tree", "--missing-ok"]).output().await?;
        let tree = String::from_utf8_lossy(&tree).trim().to_owned();

        let numbers = self.diff(&new).args(["--numstat", "-z", &tree]);
        let files = listing::numstat(&numbers.output().await?);
        let path = self.dir.changes_patch();
        let unfinished = path.with_added_extension("new");
        let mut patch = File::create(&unfinished)?;
        let diff = self.diff(&new).args([
            "--patch",
            "--binary",
            "--full-index",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            &tree,
        ]);
        let length = diff.into_file(&mut patch, LARGEST_PATCH).await;
        let kept = match &length {
            Ok(length) if *length <= LARGEST_PATCH => {
                patch.sync_all()?;
                fs::rename(&unfinished, &path)?;
                Some(path.display().to_string())
            }
            // Half a patch is worse than none.
            _ => {
                fs::remove_file(&unfinished)?;
                None
            }
        };
        let length = length?;
        write_durably(&self.dir.changes_stat(), stat(&files).as_bytes())?;
        let sum =
            |count: fn(&ChangedFile) -> Option<u64>| Some(files.iter().filter_map(count).sum());
        Ok(Recorded {
            changes: Changes {
                files: Some(files.len() as u64),
                insertions: sum(|file| file.insertions),
                deletions: sum(|file| file.deletions),
                note: kept.is_none().then(|| {
                    let (length, most) = (ByteSize(length), ByteSize(LARGEST_PATCH));
                    format!("the patch is left out: it has {length}, and {most} are the most")
                }),
                patch: kept,
            },
            files: named(files),
            ..Recorded::default()
        })
    }

    /// Copies the contents from before into our own folder; each is hashed on its way, and is what its name says.
    async fn fetch_old(&self, differences: &Differences) -> Result<(), ChangesError> {
        let mut wanted = Vec::new();
        for (old, _) in differences.values() {
            if let Some(old) = old {
                wanted.extend_from_slice(&old.object);
                wanted.push(b'\n');
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let index = self.scratch.path().join("none");
        let mut pack = tempfile::tempfile_in(self.scratch.path())?;
        let read = self.git.call("read what was there before", &index);
        let length = read
            .with_project_objects()
            .args(["pack-objects", "-q", "--stdout", "--window=0"])
            .input(wanted.clone())
            .into_file(&mut pack, MOST_BYTES)
            .await?;
        if length > MOST_BYTES {
            return Err(ChangesError::TooMuch { bytes: length });
        }
        pack.rewind()?;
        let check = self.git.call("check what was there before", &index);
        let check = check.args(["index-pack", "--stdin"]).input_file(pack);
        check.output().await?;
        let look = self.git.call("look for what was there before", &index);
        let look = look.args(["cat-file", "--batch-check=%(objecttype)"]);
        let types = look.input(wanted).output().await?;
        match types
            .split(|byte| *byte == b'\n')
            .any(|line| line.ends_with(b"missing"))
        {
            true => Err(ChangesError::Forged),
            false => Ok(()),
        }
    }

    async fn fill(&self, index: &Path, info: Vec<u8>) -> Result<(), ChangesError> {
        let fill = self.git.call("list what differs", index);
        let fill = fill.args(["update-index", "-z", "--index-info"]);
        fill.input(info).output().await?;
        Ok(())
    }

    fn diff(&self, index: &Path) -> git::Call {
        let diff = self.git.call("make the patch", index);
        diff.args(["diff-index", "--cached", "--find-renames"])
    }
}

/// Runs what reads many files. After the deadline nobody waits for it; it ends by itself.
async fn blocking<T: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ChangesError> {
    match timeout_at(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(done) => Ok(done.map_err(io::Error::other)?),
        Err(_) => Err(ChangesError::TimedOut),
    }
}

fn remove_results(dir: &AttemptDir) {
    let patch = dir.changes_patch();
    let unfinished = patch.with_added_extension("new");
    for file in [patch, unfinished, dir.changes_stat()] {
        let _removed = fs::remove_file(file);
    }
}

fn no_changes() -> Recorded {
    let changes = Changes {
        files: Some(0),
        insertions: Some(0),
        deletions: Some(0),
        ..Changes::default()
    };
    Recorded {
        changes,
        ..Recorded::default()
    }
}

fn unknown(note: &str, warning: Option<String>) -> Recorded {
    let changes = Changes {
        note: Some(note.to_owned()),
        ..Changes::default()
    };
    Recorded {
        changes,
        warning,
        ..Recorded::default()
    }
}

fn failed(what: &str, why: &str) -> Recorded {
    let text = format!("there is no patch: {what}: {why}");
    unknown(&text, Some(text.clone()))
}

/// Says what a patch does not show.
fn add_notes(changes: &mut Changes, left_out: usize, nested: usize) {
    let mut notes: Vec<String> = changes.note.take().into_iter().collect();
    if left_out > 0 {
        let largest = ByteSize(LARGEST_FILE);
        notes.push(format!(
            "files that are not in the patch because they have more than {largest} or cannot be read: {left_out}"
        ));
    }
    if nested > 0 {
        notes.push(format!(
            "repositories inside of the project that were not looked into: {nested}"
        ));
    }
    changes.note = (!notes.is_empty()).then(|| notes.join("; "));
}

/// Returns the files of the most changed lines.
fn named(mut files: Vec<ChangedFile>) -> Vec<ChangedFile> {
    if files.len() > NAMED_FILES {
        let lines = |file: &ChangedFile| file.insertions.unwrap_or(0) + file.deletions.unwrap_or(0);
        files.sort_by(|a, b| lines(b).cmp(&lines(a)).then_with(|| a.path.cmp(&b.path)));
        files.truncate(NAMED_FILES);
        files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    files
}

/// Returns the lines of `changes.stat`: what was added, what was removed, the path; `-` for a binary file.
fn stat(files: &[ChangedFile]) -> String {
    let count =
        |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let line = |file: &ChangedFile| {
        let (insertions, deletions) = (count(file.insertions), count(file.deletions));
        let path = file.path.escape_debug();
        match &file.renamed_from {
            Some(old) => format!(
                "{insertions}\t{deletions}\t{} => {path}\n",
                old.escape_debug()
            ),
            None => format!("{insertions}\t{deletions}\t{path}\n"),
        }
    };
    files.iter().map(line).collect()
}
