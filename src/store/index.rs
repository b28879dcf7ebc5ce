//! A store of one kind of object, by id and by reserved name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

/// Objects of one noun, found by id, unique id prefix, or name.
#[derive(Debug)]
pub struct Store<V> {
    noun: &'static str,
    inner: Mutex<Inner<V>>,
}

#[derive(Debug)]
struct Inner<V> {
    by_id: HashMap<String, Entry<V>>,
    /// Every name in use, with the id it stands for; reserved ones have no entry in `by_id` yet.
    by_name: HashMap<String, String>,
    version: u64,
}

#[derive(Debug)]
struct Entry<V> {
    name: String,
    value: Arc<V>,
}

impl<V> Store<V> {
    /// An empty store; `noun` is what error messages call its objects.
    pub fn new(noun: &'static str) -> Self {
        Store { noun, inner: Mutex::new(Inner { by_id: HashMap::new(), by_name: HashMap::new(), version: 0 }) }
    }

    /// Takes `name` for the object `id` that is about to be made. Dropping the reservation frees the name.
    ///
    /// # Errors
    /// `AlreadyExists` while another object has the name.
    pub fn reserve(&self, name: &str, id: &str) -> Result<Reservation<'_, V>> {
        let mut inner = self.inner.lock();
        if let Some(holder) = inner.by_name.get(name) {
            let made = if inner.by_id.contains_key(holder) { "exists" } else { "is being created" };
            let message =
                format!("{} {name:?} {made} with id {holder}: remove it first, or use another attempt", self.noun);
            return Err(Error::new(Kind::AlreadyExists, message));
        }
        inner.by_name.insert(name.to_owned(), id.to_owned());
        Ok(Reservation { store: self, name: name.to_owned(), id: id.to_owned() })
    }

    /// The object with this id, or with the only id that starts so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for an empty id or a prefix of several.
    pub fn get(&self, id: &str) -> Result<Arc<V>> {
        if id.is_empty() {
            return Err(Error::invalid(format!("{} id is empty", self.noun)));
        }
        let inner = self.inner.lock();
        if let Some(entry) = inner.by_id.get(id) {
            return Ok(entry.value.clone());
        }
        let mut matching = inner.by_id.iter().filter(|(key, _)| key.starts_with(id));
        match (matching.next(), matching.next()) {
            (Some((_, entry)), None) => Ok(entry.value.clone()),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("{} id {id:?} is ambiguous: give more digits", self.noun)))
            }
            _ => Err(Error::not_found(format!("{} {id:?} does not exist", self.noun))),
        }
    }

    /// The object with exactly this id: for ids that no person typed.
    pub fn exact(&self, id: &str) -> Option<Arc<V>> {
        self.inner.lock().by_id.get(id).map(|entry| entry.value.clone())
    }

    /// Whether there is an object with exactly this id, or one is being made.
    pub fn knows(&self, id: &str) -> bool {
        let inner = self.inner.lock();
        inner.by_id.contains_key(id) || inner.by_name.values().any(|held| held == id)
    }

    /// The object with this reserved name, if it is made.
    pub fn named(&self, name: &str) -> Option<Arc<V>> {
        let inner = self.inner.lock();
        let id = inner.by_name.get(name)?;
        inner.by_id.get(id).map(|entry| entry.value.clone())
    }

    /// As [`Store::get`], with a missing object as `None`.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty id or a prefix of several.
    pub fn find(&self, id: &str) -> Result<Option<Arc<V>>> {
        match self.get(id) {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every object, in no order.
    pub fn list(&self) -> Vec<Arc<V>> {
        self.inner.lock().by_id.values().map(|entry| entry.value.clone()).collect()
    }

    /// A number that grows whenever an object comes or goes.
    pub fn version(&self) -> u64 {
        self.inner.lock().version
    }

    /// Forgets an object and frees its name. Idempotent.
    pub fn remove(&self, id: &str) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.by_id.remove(id) {
            inner.by_name.remove(&entry.name);
            inner.version += 1;
        }
    }
}

/// A name taken for an object that is being made.
#[derive(Debug)]
#[must_use = "dropping it frees the name"]
pub struct Reservation<'a, V> {
    store: &'a Store<V>,
    name: String,
    id: String,
}

impl<V> Reservation<'_, V> {
    /// The object is made: it can be found from now on.
    pub fn fill(self, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let entry = Entry { name: self.name.clone(), value: value.clone() };
        let mut inner = self.store.inner.lock();
        inner.by_id.insert(self.id.clone(), entry);
        inner.version += 1;
        value
    }
}

impl<V> Drop for Reservation<'_, V> {
    fn drop(&mut self) {
        let mut inner = self.store.inner.lock();
        if !inner.by_id.contains_key(&self.id) {
            inner.by_name.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: Result<T>) -> Option<Kind> {
        result.err().map(|e| e.kind())
    }

    #[test]
    fn a_reserved_name_is_refused_and_freed_on_drop() {
        let store: Store<u8> = Store::new("thing");
        let slot = store.reserve("a", "1").unwrap();
        assert_eq!(kind(store.reserve("a", "2")), Some(Kind::AlreadyExists));
        assert_eq!(kind(store.get("1")), Some(Kind::NotFound));
        drop(slot);
        let slot = store.reserve("a", "2").unwrap();
        assert!(store.named("a").is_none(), "it is not made");
        assert!(store.knows("2") && !store.knows("1"));
        slot.fill(2);
        assert!(store.knows("2"));
        assert_eq!(*store.get("2").unwrap(), 2);
        assert_eq!(store.named("a").as_deref(), Some(&2));
        assert_eq!(kind(store.reserve("a", "3")), Some(Kind::AlreadyExists));
        store.remove("2");
        store.remove("2");
        store.reserve("a", "3").unwrap().fill(3);
        assert_eq!((store.list().len(), store.version()), (1, 3));
    }

    #[test]
    fn ids_are_found_by_unique_prefix() {
        let store: Store<u8> = Store::new("thing");
        store.reserve("a", "abc").unwrap().fill(1);
        store.reserve("b", "abd").unwrap().fill(2);
        store.reserve("c", "ab").unwrap().fill(3);
        assert_eq!(*store.get("abc").unwrap(), 1);
        assert_eq!(*store.get("ab").unwrap(), 3, "an exact id wins");
        assert_eq!(kind(store.get("a")), Some(Kind::InvalidArgument));
        assert_eq!(kind(store.get("")), Some(Kind::InvalidArgument));
        assert!(store.find("x").unwrap().is_none());
        assert!(store.exact("a").is_none() && store.exact("abc").is_some());
    }
}
