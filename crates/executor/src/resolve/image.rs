//! Image references.
//!
//! Owns: the check of their form, by the rules of Docker's distribution library.
//! Reads: nothing.
//! Never: asks whether an image is there.

/// Why a text is not an image reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProblem {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It has a blank in it.
    #[error("it has a blank in it")]
    Blank,
    /// The name has a capital letter.
    #[error("its name must be in lower case")]
    UpperCase,
    /// The registry's name is bad.
    #[error("its registry must be a host name with an optional port")]
    Registry,
    /// A part of the name is bad.
    #[error("its name must be letters, digits, and single . _ or - between them")]
    Name,
    /// The tag is bad.
    #[error("its tag must be up to 128 letters, digits, _ . and -, and must not begin with . or -")]
    Tag,
    /// The digest is bad.
    #[error("its digest must be sha256: and 64 hexadecimal digits")]
    Digest,
    /// The name is too long.
    #[error("its name is longer than 255 characters")]
    Long,
}

/// Checks the form of `[registry/]name[:tag][@digest]`.
///
/// # Errors
///
/// [`ImageProblem`] if it is not of that form.
pub fn check_image(reference: &str) -> Result<(), ImageProblem> {
    if reference.is_empty() {
        return Err(ImageProblem::Empty);
    }
    if reference.contains(char::is_whitespace) {
        return Err(ImageProblem::Blank);
    }
    let rest = match reference.split_once('@') {
        Some((rest, digest)) => {
            let hex = digest.strip_prefix("sha256:").ok_or(ImageProblem::Digest)?;
            let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if hex.len() != 64 || !hex.bytes().all(is_hex) {
                return Err(ImageProblem::Digest);
            }
            rest
        }
        None => reference,
    };
    let slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let name = match rest[slash..].split_once(':') {
        Some((last, tag)) => {
            if !is_tag(tag) {
                return Err(ImageProblem::Tag);
            }
            &rest[..slash + last.len()]
        }
        None => rest,
    };
    if name.len() > 255 {
        return Err(ImageProblem::Long);
    }
    let path = match name.split_once('/') {
        Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => {
            if !is_registry(first) {
                return Err(ImageProblem::Registry);
            }
            path
        }
        _ => name,
    };
    if path.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(ImageProblem::UpperCase);
    }
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err(ImageProblem::Name)
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    text.len() <= 128
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => match text.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, rest)) => (address, rest.strip_prefix(':').or(Some(""))),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host = if text.starts_with('[') {
        !host.is_empty() && host.bytes().all(|b| b == b':' || b.is_ascii_hexdigit())
    } else {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b == b'-' || b.is_ascii_alphanumeric())
        })
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Returns whether a text is runs of letters and digits with one of `.`, `_`, `__` or hyphens between them.
fn is_component(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.starts_with(is_letter)
        && text.ends_with(is_letter)
        && text.split(is_letter).all(is_separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_docker_takes_are_taken() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for reference in [
            "debian",
            "debian:12",
            "library/debian:12-slim",
            "docker.io/bborbe/claude-yolo:v0.15.1",
            "localhost/x",
            "localhost:5000/x",
            "Registry.Example.com:5000/a/b_c/d__e/f--g.h:T_1.x-y",
            "[::1]:5000/x",
            "1a",
            digest.as_str(),
            &format!("debian@{digest}"),
            &format!("debian:12@{digest}"),
            &"0f".repeat(32),
        ] {
            assert_eq!(check_image(reference), Ok(()), "{reference}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (reference, problem) in [
            ("", ImageProblem::Empty),
            ("a b", ImageProblem::Blank),
            ("Debian", ImageProblem::UpperCase),
            ("docker.io/Foo/x", ImageProblem::UpperCase),
            ("a:", ImageProblem::Tag),
            ("a:-x", ImageProblem::Tag),
            ("a:b:c", ImageProblem::Tag),
            ("a@sha256:12", ImageProblem::Digest),
            ("a@md5:12", ImageProblem::Digest),
            ("-a", ImageProblem::Name),
            ("a/", ImageProblem::Name),
            ("a//b", ImageProblem::Name),
            ("/a", ImageProblem::Name),
            ("a..b", ImageProblem::Name),
            ("a___b", ImageProblem::Name),
            ("$IMAGE", ImageProblem::UpperCase),
            ("é", ImageProblem::Name),
            ("https://x/y", ImageProblem::Registry),
            ("x.:1/y", ImageProblem::Registry),
            ("[::1/x", ImageProblem::Registry),
            (&"a".repeat(256), ImageProblem::Long),
        ] {
            assert_eq!(check_image(reference), Err(problem), "{reference}");
        }
    }
}
