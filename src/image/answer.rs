//! An image in the words of the CRI.

use cricket_proto::runtime;

use crate::store::image::Image;

/// The CRI's form of an image. The user is a number or a name, never both; root by default is neither.
pub fn image(image: &Image) -> runtime::Image {
    let mut shown = runtime::Image::new();
    shown.id = image.id.clone();
    shown.repo_tags = image.repo_tags.clone();
    shown.repo_digests = image.repo_digests.clone();
    shown.size = image.size_bytes;
    shown.pinned = image.pinned;
    let user = image.config.user.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(uid) => shown.uid = Some(runtime::Int64Value { value: uid, ..Default::default() }).into(),
        Err(_) => shown.username = user.to_owned(),
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_a_number_or_a_name_or_neither() {
        for (user, uid, username) in [
            ("", None, ""),
            ("1000", Some(1000), ""),
            ("1000:50", Some(1000), ""),
            ("0", Some(0), ""),
            ("www-data", None, "www-data"),
            ("www:data", None, "www"),
            (":50", None, ""),
        ] {
            let mut stored = Image::default();
            stored.config.user = user.into();
            let shown = image(&stored);
            assert_eq!(shown.uid.as_ref().map(|u| u.value), uid, "{user}");
            assert_eq!(shown.username, username, "{user}");
        }
    }
}
