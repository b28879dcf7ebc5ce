//! Container records of the fake.

use super::state::{check_identifier, check_labels, State};
use crate::containerd::{time, Record};
use crate::error::{Error, Kind, Result};

impl State {
    pub(super) fn create_container(&mut self, container: &Record) -> Result<()> {
        check_identifier(&container.id)?;
        check_labels(&container.labels)?;
        if container.runtime.is_empty() {
            return Err(Error::invalid("a container needs a runtime"));
        }
        if self.containers.contains_key(&container.id) {
            return Err(Error::new(Kind::AlreadyExists, format!("container {:?} already exists", container.id)));
        }
        let stored = Record { created_at: time::now(), ..container.clone() };
        self.containers.insert(container.id.clone(), stored);
        Ok(())
    }

    pub(super) fn container(&self, id: &str) -> Result<&Record> {
        self.containers.get(id).ok_or_else(|| Error::not_found(format!("container {id:?} not found")))
    }

    pub(super) fn list_containers(&self, filters: &[String]) -> Result<Vec<Record>> {
        let filters = filters.iter().map(|text| LabelFilter::parse(text)).collect::<Result<Vec<_>>>()?;
        let wanted = |record: &&Record| filters.is_empty() || filters.iter().any(|filter| filter.matches(record));
        Ok(self.containers.values().filter(wanted).cloned().collect())
    }

    pub(super) fn update_container(&mut self, container: &Record) -> Result<()> {
        self.container(&container.id)?;
        check_labels(&container.labels)?;
        if let Some(stored) = self.containers.get_mut(&container.id) {
            stored.spec.clone_from(&container.spec);
            stored.labels.clone_from(&container.labels);
        }
        Ok(())
    }

    pub(super) fn delete_container(&mut self, id: &str) -> Result<()> {
        self.container(id)?;
        self.containers.remove(id);
        Ok(())
    }
}

/// `labels."key"==value`, the only form of containerd's filters that the fake knows.
struct LabelFilter {
    key: String,
    value: String,
}

impl LabelFilter {
    fn parse(text: &str) -> Result<Self> {
        let parts = text.strip_prefix("labels.").and_then(|rest| rest.split_once("=="));
        let (key, value) = parts.ok_or_else(|| Error::invalid(format!("the fake knows no filter {text:?}")))?;
        let bare = |part: &str| part.trim_matches('"').to_owned();
        Ok(LabelFilter { key: bare(key), value: bare(value) })
    }

    fn matches(&self, record: &Record) -> bool {
        record.labels.get(&self.key) == Some(&self.value)
    }
}
