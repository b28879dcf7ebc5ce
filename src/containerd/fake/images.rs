//! Image records of the fake.

use super::content::check_digest;
use super::state::{check_labels, State};
use crate::containerd::{time, Event, ImageRecord};
use crate::error::{Error, Result};

impl State {
    pub(super) fn image(&self, name: &str) -> Result<ImageRecord> {
        self.images.get(name).cloned().ok_or_else(|| Error::not_found(format!("image {name:?} not found")))
    }

    pub(super) fn put_image(&mut self, image: &ImageRecord) -> Result<()> {
        check_labels(&image.labels)?;
        check_digest(&image.target.digest)?;
        if image.name.is_empty() || image.target.media_type.is_empty() || image.target.size_bytes == 0 {
            return Err(Error::invalid("an image needs a name, and its target a media type and a size"));
        }
        let created_at = self.images.get(&image.name).map_or_else(time::now, |old| old.created_at);
        self.images.insert(image.name.clone(), ImageRecord { created_at, ..image.clone() });
        self.publish(&Event::ImageChanged { name: image.name.clone() });
        Ok(())
    }

    pub(super) fn delete_image(&mut self, name: &str, sync: bool) -> Result<()> {
        self.image(name)?;
        self.images.remove(name);
        self.publish(&Event::ImageChanged { name: name.to_owned() });
        if sync {
            self.collect_garbage();
        }
        Ok(())
    }
}
