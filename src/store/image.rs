//! Images as the verbs see them: found by id, id prefix or name, answered from memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::containerd::Descriptor;
use crate::error::{Error, Result};
use crate::oci::facts::ImageFacts;
use crate::reference::{is_full_id, looks_like_id, Reference};
use crate::sync::Mutex;

/// One image: everything that has the same configuration, under however many names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    /// The names with a tag, normalised and sorted. Follows from `names`.
    pub repo_tags: Vec<String>,
    /// The names with a digest, normalised and sorted. Follows from `names`.
    pub repo_digests: Vec<String>,
    /// Manifest, configuration and layers as they are stored, for this node's platform.
    pub size_bytes: u64,
    /// The snapshot that holds its root filesystem; "" for an image without layers.
    pub chain_id: String,
    /// What its configuration says.
    pub config: ImageFacts,
    /// The manifest or index that one of its names points to.
    pub target: Descriptor,
    /// All its records in containerd, sorted, the id record among them.
    pub names: Vec<String>,
    /// The kubelet must not collect it. Follows from its records.
    pub pinned: bool,
}

/// A record in containerd and the image that it was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    /// The record's name.
    pub name: String,
    /// The record says that the image is pinned.
    pub pinned: bool,
    /// The image; its `names` and what follows from them are the store's business.
    pub image: Image,
}

/// The images by id and by record name. Its lock is never held while anything blocks.
///
/// containerd is the truth and may change while it is read. So whoever wants to write what was read takes the
/// [`epoch`](ImageStore::epoch) first; if the store has changed by then, the write is refused: read again.
#[derive(Debug, Default)]
pub struct ImageStore {
    inner: Mutex<Inner>,
    /// Patterns of names whose images are pinned.
    pins: Vec<String>,
}

#[derive(Debug, Default)]
struct Inner {
    epoch: u64,
    by_id: HashMap<String, Arc<Image>>,
    by_name: HashMap<String, Name>,
}

#[derive(Debug)]
struct Name {
    id: String,
    pinned: bool,
}

impl ImageStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store in which images with a name like one of `patterns` are pinned.
    pub fn with_pins(patterns: &[String]) -> Self {
        ImageStore { pins: patterns.to_vec(), ..Self::default() }
    }

    /// Finds an image by record name, by any reference that normalises to one, by id, or by the beginning of an id
    /// (with or without `sha256:`). A name wins over an id that begins like it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when several ids begin so.
    pub fn get(&self, text: &str) -> Result<Arc<Image>> {
        let normal = Reference::parse(text).map(|r| r.to_string()).ok();
        let inner = self.inner.lock();
        let named = inner.by_name.get(text).or_else(|| inner.by_name.get(normal.as_deref()?));
        if let Some(image) = named.and_then(|name| inner.by_id.get(&name.id)) {
            return Ok(Arc::clone(image));
        }
        let missing = || Error::not_found(format!("image {text:?} is not on this node"));
        let digits = looks_like_id(text).ok_or_else(missing)?;
        let begins = |id: &str| id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(digits));
        let mut found = inner.by_id.values().filter(|image| begins(&image.id));
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(Arc::clone(image)),
            (None, _) => Err(missing()),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("several image ids begin with {text:?}, give more of it")))
            }
        }
    }

    /// The image that was found to be what records with this target name, if the last one of its records has it.
    pub fn of_target(&self, digest: &str) -> Option<Arc<Image>> {
        self.inner.lock().by_id.values().find(|image| image.target.digest == digest).cloned()
    }

    /// All images, in no order.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.lock().by_id.values().cloned().collect()
    }

    /// A number that changes with every change of the store.
    pub fn epoch(&self) -> u64 {
        self.inner.lock().epoch
    }

    /// Forgets everything and takes these. `false` and nothing done if the store is past `epoch`.
    #[must_use]
    pub fn replace_all(&self, epoch: u64, named: Vec<NamedImage>) -> bool {
        self.change(epoch, |inner, pins| {
            inner.by_id.clear();
            inner.by_name.clear();
            for NamedImage { name, pinned, image } in named {
                inner.by_name.insert(name, Name { id: image.id.clone(), pinned });
                inner.by_id.insert(image.id.clone(), Arc::new(image));
            }
            let ids: Vec<String> = inner.by_id.keys().cloned().collect();
            for id in ids {
                inner.derive(&id, pins);
            }
        })
    }

    /// Gives an image a name, taking it from the image that had it; an image without any name left is forgotten.
    /// `false` and nothing done if the store is past `epoch`.
    #[must_use]
    pub fn bind(&self, epoch: u64, named: NamedImage) -> bool {
        self.change(epoch, |inner, pins| {
            let NamedImage { name, pinned, image } = named;
            let id = image.id.clone();
            inner.by_id.insert(id.clone(), Arc::new(image));
            let before = inner.by_name.insert(name, Name { id: id.clone(), pinned });
            inner.derive(&id, pins);
            if let Some(before) = before {
                inner.derive(&before.id, pins);
            }
        })
    }

    /// Forgets a name, and its image if that was the last. `false` and nothing done if the store is past `epoch`.
    #[must_use]
    pub fn unbind(&self, epoch: u64, name: &str) -> bool {
        self.change(epoch, |inner, pins| {
            if let Some(before) = inner.by_name.remove(name) {
                inner.derive(&before.id, pins);
            }
        })
    }

    /// Forgets an image and all its names. Idempotent.
    pub fn remove(&self, id: &str) {
        let mut inner = self.inner.lock();
        inner.epoch += 1;
        inner.by_name.retain(|_, name| name.id != id);
        inner.by_id.remove(id);
    }

    fn change(&self, epoch: u64, change: impl FnOnce(&mut Inner, &[String])) -> bool {
        let mut inner = self.inner.lock();
        if inner.epoch != epoch {
            return false;
        }
        inner.epoch += 1;
        change(&mut inner, &self.pins);
        true
    }
}

impl Inner {
    /// Brings what follows from an image's names up to date.
    fn derive(&mut self, id: &str, pins: &[String]) {
        let mine = || self.by_name.iter().filter(|(_, name)| name.id == id);
        let mut names: Vec<String> = mine().map(|(name, _)| name.clone()).collect();
        let like = |name: &str| pins.iter().any(|pattern| matches(pattern, name));
        let pinned = mine().any(|(name, record)| record.pinned || like(name));
        if names.is_empty() {
            self.by_id.remove(id);
            return;
        }
        names.sort();
        if let Some(image) = self.by_id.get_mut(id).map(Arc::make_mut) {
            (image.repo_tags, image.repo_digests) = tags_and_digests(&names);
            image.names = names;
            image.pinned = pinned;
        }
    }
}

/// Whether `*` for any text makes `text` of `pattern`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The references among record names: those with a tag, those with a digest. The id record is neither.
fn tags_and_digests(names: &[String]) -> (Vec<String>, Vec<String>) {
    let references = names.iter().filter(|name| !is_full_id(name)).filter_map(|name| Reference::parse(name).ok());
    let (tagged, digested): (Vec<_>, Vec<_>) = references.partition(|r| r.tag().is_some());
    let show = |references: Vec<Reference>| {
        let mut shown: Vec<String> = references.iter().map(Reference::to_string).collect();
        shown.sort();
        shown.dedup();
        shown
    };
    (show(tagged), show(digested))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn id(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn named(name: &str, digit: char) -> NamedImage {
        NamedImage { name: name.into(), pinned: false, image: Image { id: id(digit), ..Image::default() } }
    }

    fn store(named: Vec<NamedImage>) -> ImageStore {
        let store = ImageStore::new();
        assert!(store.replace_all(store.epoch(), named));
        store
    }

    #[test]
    fn found_by_every_form_of_its_name_and_id() {
        let digest = format!("docker.io/library/app@{}", id('d'));
        let store = store(vec![
            named("docker.io/library/app:latest", 'a'),
            named(&digest, 'a'),
            named(&id('a'), 'a'),
            named("foreign name", 'b'),
        ]);
        let (full, bare) = (id('a'), "a".repeat(64));
        for text in
            ["app", "app:latest", "docker.io/app", &format!("app:9@{}", id('d')), &full, &bare, "aaa", "sha256:a"]
        {
            assert_eq!(store.get(text).expect(text).id, id('a'), "{text}");
        }
        assert_eq!(store.get("foreign name").unwrap().id, id('b'));
        let app = store.get("app").unwrap();
        assert_eq!(app.repo_tags, ["docker.io/library/app:latest"]);
        assert_eq!(app.repo_digests, [digest]);
        assert_eq!(app.names.len(), 3);
        for text in ["", "app:2", "sha256:", "c", "sha256:c", "Not A Reference"] {
            assert_eq!(store.get(text).unwrap_err().kind(), Kind::NotFound, "{text}");
        }
    }

    #[test]
    fn a_name_wins_and_an_ambiguous_id_is_refused() {
        let mut other = named("one", '1');
        other.image.id = format!("sha256:a{}", "1".repeat(63));
        let store = store(vec![named("docker.io/library/aa:latest", 'b'), named(&id('a'), 'a'), other]);
        assert_eq!(store.get("aa").unwrap().id, id('b'));
        assert_eq!(store.get("aaa").unwrap().id, id('a'));
        assert_eq!(store.get("a").unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn a_moved_tag_leaves_the_old_image_with_its_id() {
        let store = store(vec![named("docker.io/library/app:1", 'a'), named(&id('a'), 'a')]);
        assert!(store.bind(store.epoch(), named("docker.io/library/app:1", 'b')));
        assert_eq!(store.get("app:1").unwrap().id, id('b'));
        assert!(store.get(&id('a')).unwrap().repo_tags.is_empty());
        assert!(store.unbind(store.epoch(), &id('a')));
        assert_eq!(store.get(&id('a')).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(store.list().len(), 1);
    }

    #[test]
    fn pinned_as_long_as_one_record_says_so() {
        let pin = NamedImage { pinned: true, ..named("docker.io/library/app:1", 'a') };
        let store = store(vec![pin, named(&id('a'), 'a')]);
        assert!(store.get("app:1").unwrap().pinned);
        assert!(store.unbind(store.epoch(), "docker.io/library/app:1"));
        assert!(!store.get(&id('a')).unwrap().pinned);
    }

    #[test]
    fn what_was_read_before_a_removal_is_refused() {
        let store = store(vec![named("docker.io/library/app:1", 'a')]);
        let epoch = store.epoch();
        store.remove(&id('a'));
        assert!(!store.bind(epoch, named("docker.io/library/app:1", 'a')));
        assert!(!store.unbind(epoch, "docker.io/library/app:1"));
        assert!(!store.replace_all(epoch, vec![named("docker.io/library/app:1", 'a')]));
        assert!(store.list().is_empty());
        store.remove(&id('a'));
    }

    #[test]
    fn patterns_of_pinned_names() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("r.io/*", "r.io/x:1", true),
            ("r.io/*", "q.io/x:1", false),
            ("*/pause:*", "r.io/pause:3", true),
            ("*/pause:*", "r.io/pausex", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
