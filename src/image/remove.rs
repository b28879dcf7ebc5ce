//! RemoveImage: all records of an image, by any of its names.

use cricket_proto::runtime::{RemoveImageRequest, RemoveImageResponse};

use super::Images;
use crate::call::Call;
use crate::error::{Context, Idempotent, Kind, Result};

/// Removes an image with all its names; when it returns, no list shows it and containerd has collected what nothing
/// else uses. Containers made from it keep running. Idempotent; what is not there is removed.
///
/// # Errors
/// `InvalidArgument` if several ids begin so; what containerd says, and then what is left can be removed again.
pub fn remove(at: &Images<'_>, call: &Call, request: &RemoveImageRequest) -> Result<RemoveImageResponse> {
    let image = match at.store.get(&request.image.image) {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(RemoveImageResponse::new()),
        Err(e) => return Err(e),
    };
    // The id record goes last: until then the image can be found and removed again.
    let mut names: Vec<&String> = image.names.iter().collect();
    names.sort_by_key(|name| **name == image.id);
    for (n, name) in names.iter().enumerate() {
        let last = n + 1 == names.len();
        at.containerd.delete_image(call, name, last).or_gone().with_context(|| format!("remove image {name}"))?;
    }
    at.store.remove(&image.id);
    Ok(RemoveImageResponse::new())
}

#[cfg(test)]
mod tests {
    use cricket_proto::runtime::ImageSpec;

    use super::super::testing::*;
    use super::*;
    use crate::containerd::fake::Fault;

    const APP: &str = "docker.io/library/app:1";

    fn request(image: &str) -> RemoveImageRequest {
        let spec = ImageSpec { image: image.into(), ..Default::default() };
        RemoveImageRequest { image: Some(spec).into(), ..Default::default() }
    }

    fn node(sample: &Sample) -> Node {
        let node = Node::new();
        node.import(&layout(&[(sample, APP), (sample, "r.io/other:2")]), None).unwrap();
        node
    }

    #[test]
    fn by_any_name_all_of_it_goes() {
        let sample = Sample::new();
        let id = sample.id();
        for name in ["app:1", "r.io/other:2", &id, &id[7..], &id[7..19]] {
            let node = node(&sample);
            remove(&node.images(), &Call::unbounded(), &request(name)).unwrap();
            assert_eq!(node.fake.leftovers(), [""; 0], "{name}");
            assert!(node.store.list().is_empty());
        }
    }

    #[test]
    fn another_image_stays_whole() {
        let sample = Sample::new();
        let node = node(&sample);
        let other = Sample { env: "A=2", ..Sample::new() };
        node.import(&layout(&[(&other, "keep")]), None).unwrap();
        remove(&node.images(), &Call::unbounded(), &request("app:1")).unwrap();
        assert_eq!(node.store.get("keep").unwrap().id, other.id());
        assert_eq!((node.left("content").len(), node.left("snapshot").len()), (5, 3));
    }

    #[test]
    fn what_is_not_there_is_removed_but_what_is_ambiguous_is_not() {
        let sample = Sample::new();
        let node = node(&sample);
        for missing in ["nothing:1", "", "sha256:", &"0".repeat(64)] {
            remove(&node.images(), &Call::unbounded(), &request(missing)).unwrap();
        }
        // Seventeen ids share some first digit.
        for n in 0..16 {
            let env: &'static str = ["A=0", "A=1", "A=2", "A=3", "A=4", "A=5", "A=6", "A=7"][n % 8];
            let layers = sample.layers[..1 + n / 8].to_vec();
            node.import(&layout(&[(&Sample { env, layers, ..sample.clone() }, "")]), None).unwrap();
        }
        let kinds = "0123456789abcdef".chars().map(|d| remove_kind(&node, &d.to_string()));
        assert!(kinds.collect::<Vec<_>>().contains(&Some(Kind::InvalidArgument)));
    }

    fn remove_kind(node: &Node, name: &str) -> Option<Kind> {
        remove(&node.images(), &Call::unbounded(), &request(name)).err().map(|e| e.kind())
    }

    #[test]
    fn whichever_call_fails_it_can_be_removed_again() {
        let sample = Sample::new();
        for fault in [Fault::Refused, Fault::LostReply] {
            for n in 1.. {
                let node = node(&sample);
                node.fake.fail_at(n, fault);
                if remove_kind(&node, "app:1").is_none() {
                    assert!(node.fake.fault_pending() && n > 4);
                    break;
                }
                assert_eq!(remove_kind(&node, &sample.id()), None);
                assert!(node.store.list().is_empty());
                // A lost reply to the deletion that collects may have collected.
                assert_eq!(node.left("image"), [""; 0]);
            }
        }
    }
}
