//! Volumes that an image declares: directories of the container's own, filled from the image, gone with it.

use std::fs;
use std::os::unix::fs::{chown, symlink, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use cricket::containerd::Containerd;
use cricket::error::Kind;
use cricket::image::{at, import};
use cricket_proto::runtime::{CreateContainerRequest, Mount};
use serde_json::{json, Value};

use crate::faults::creates_all_or_nothing;
use crate::requests::{self, config};
use crate::world::{assert_refused, call, World};
use crate::{archive, users};

const IMAGE: &str = "cricket.local/volumes:1";

/// Imports an image that declares these volumes. Where the fake has its content, which is empty.
fn image(world: &World, volumes: &[&str]) -> PathBuf {
    let tree = world.dir.path().join("tree");
    fs::create_dir_all(&tree).expect("mkdir");
    fs::write(tree.join("file"), volumes.join(" ")).expect("write");
    let volumes: serde_json::Map<String, Value> = volumes.iter().map(|path| ((*path).into(), json!({}))).collect();
    let file = world.dir.path().join("volumes.tar");
    archive::write(&file, IMAGE, &tree, json!({"Cmd": ["/bin/app"], "Volumes": volumes}));
    import::import(&at(world), &call(), &file, world.dir.path(), None).expect("import");
    let chain_id = world.images.get(IMAGE).expect("imported").chain_id.clone();
    let content = world.dir.path().join("snapshots/overlayfs").join(chain_id);
    fs::create_dir_all(&content).expect("mkdir");
    content
}

fn request(pod: &str) -> CreateContainerRequest {
    let mut request = requests::container(pod, "a");
    config(&mut request).image.mut_or_insert_default().image = IMAGE.into();
    request
}

/// Destination and source of the mounts that are the container's own, as its spec has them.
fn volumes(world: &World, id: &str) -> Vec<(String, PathBuf)> {
    let record = world.fake.container(&call(), id).expect("a record");
    let spec: Value = serde_json::from_slice(&record.spec).expect("JSON");
    let own = world.dir.path().join(format!("root/containers/{id}/volumes"));
    let pair = |mount: &Value| {
        let text = |key: &str| mount[key].as_str().expect("text").to_owned();
        let source = PathBuf::from(text("source"));
        source.starts_with(&own).then(|| {
            assert_eq!(mount["options"], json!(["rbind", "rprivate", "rw"]));
            (text("destination"), source)
        })
    };
    spec["mounts"].as_array().expect("mounts").iter().filter_map(pair).collect()
}

#[test]
fn a_volume_begins_as_the_image_has_it_and_goes_with_the_container() {
    let world = World::new();
    let content =
        image(&world, &["/data", "/var/run", "/run", "/absent/deep", "/covered", "/also", "/proc", "/etc/hosts"]);
    fs::create_dir_all(content.join("data/sub")).expect("mkdir");
    fs::create_dir_all(content.join("run")).expect("mkdir");
    fs::create_dir_all(content.join("var")).expect("mkdir");
    fs::create_dir_all(content.join("covered")).expect("mkdir");
    fs::write(content.join("data/sub/file"), "of the image").expect("write");
    chown(content.join("data/sub/file"), Some(1000), Some(1001)).expect("chown");
    fs::set_permissions(content.join("data/sub/file"), fs::Permissions::from_mode(0o640)).expect("chmod");
    fs::set_permissions(content.join("data"), fs::Permissions::from_mode(0o3775)).expect("chmod");
    symlink("/etc/passwd", content.join("data/link")).expect("symlink");
    symlink("../run", content.join("var/run")).expect("symlink");
    symlink("covered", content.join("also")).expect("symlink");
    let pod = world.pod("a");
    let before = world.leftovers();
    let mut request = request(&pod);
    let covered = Mount { container_path: "/covered/".into(), host_path: "/srv".into(), ..Default::default() };
    config(&mut request).mounts.push(covered);
    config(&mut request).linux.mut_or_insert_default().security_context.mut_or_insert_default().readonly_rootfs = true;
    let id = world.create(request).expect("create");

    let found = volumes(&world, &id);
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["/data", "/run", "/absent/deep"], "each once, by its real name, unless it is mounted on");
    let data = &found[0].1;
    let facts = fs::metadata(data.join("sub/file")).expect("copied");
    assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (1000, 1001, 0o640));
    assert_eq!(fs::read_to_string(data.join("sub/file")).expect("copied"), "of the image");
    assert_eq!(fs::metadata(data).expect("there").mode() & 0o7777, 0o3775);
    assert_eq!(fs::read_link(data.join("link")).expect("a link"), PathBuf::from("/etc/passwd"));
    let absent = fs::metadata(&found[2].1).expect("there");
    assert_eq!((absent.uid(), absent.mode() & 0o7777), (0, 0o755));
    let parent = fs::metadata(data.parent().expect("a parent")).expect("there");
    assert_eq!(parent.mode() & 0o7777, 0o710, "its programs are none of the node's users' business");
    assert_eq!(world.status(&id).mounts.len(), 1, "those of the request");

    fs::write(data.join("own"), "x").expect("write");
    assert!(!content.join("data/own").exists());
    world.remove(&id).expect("remove");
    assert_eq!(world.leftovers(), before);
}

#[test]
fn they_can_be_left_to_the_writable_layer() {
    let world = World::with("image_volumes = \"ignore\"\n");
    image(&world, &["/data", "/"]);
    let pod = world.pod("a");
    let id = world.create(request(&pod)).expect("create");
    assert_eq!(volumes(&world, &id), []);
    assert!(!world.dir.path().join(format!("root/containers/{id}/volumes")).exists());
}

#[test]
fn what_an_image_cannot_have_as_a_volume_is_named() {
    for (path, text) in
        [("/", "whole root"), ("/root", "whole root"), ("/file", "/file"), ("/file/below", "/file"), ("/loop", "/loop")]
    {
        let world = World::new();
        let content = image(&world, &["/fine", path]);
        fs::create_dir_all(content.join("fine")).expect("mkdir");
        fs::write(content.join("file"), "").expect("write");
        symlink("loop", content.join("loop")).expect("symlink");
        symlink("/", content.join("root")).expect("symlink");
        let pod = world.pod("a");
        let before = world.leftovers();
        assert_refused(world.create(request(&pod)), Kind::InvalidArgument, &["volume", text]);
        assert_eq!(world.leftovers(), before, "{path}");
    }
}

#[test]
fn nothing_outside_of_the_image_is_read() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("secret"), "x").expect("write");
    let content = image(&world, &["/absolute", "/climbing", "/plain"]);
    symlink(&outside, content.join("absolute")).expect("symlink");
    symlink(format!("../../../../../../../../../..{}", outside.display()), content.join("climbing")).expect("symlink");
    fs::create_dir(content.join("plain")).expect("mkdir");
    symlink(&outside, content.join("plain/link")).expect("symlink");
    let pod = world.pod("a");
    let id = world.create(request(&pod)).expect("create");
    let found = volumes(&world, &id);
    assert_eq!(found.len(), 3);
    for (place, source) in &found[..2] {
        assert_eq!(fs::read_dir(source).expect("there").count(), 0, "{place}");
    }
    assert!(fs::symlink_metadata(found[2].1.join("link")).expect("there").is_symlink());
}

#[test]
fn in_a_pod_with_users_of_its_own_they_belong_to_the_same_users() {
    let world = users::world(true);
    world.learn_features();
    let content = image(&world, &["/data", "/absent"]);
    fs::create_dir(content.join("data")).expect("mkdir");
    fs::write(content.join("data/file"), "").expect("write");
    chown(content.join("data/file"), Some(1000), Some(50)).expect("chown");
    let pod = world.run(users::request(&world)).expect("run");
    let mut asked = request(&pod);
    requests::security(&mut asked).namespace_options.mut_or_insert_default().userns_options =
        Some(users::users()).into();
    let id = world.create(asked).expect("create");
    let found = volumes(&world, &id);
    let [(_, absent), (_, data)] = &found[..] else { panic!("{found:?}") };
    let owner = |path: PathBuf| fs::metadata(path).map(|facts| (facts.uid(), facts.gid())).expect("there");
    assert_eq!(owner(data.join("file")), (101_000, 200_050));
    assert_eq!(owner(data.clone()), (100_000, 200_000));
    assert_eq!(owner(absent.clone()), (100_000, 200_000));
    assert_eq!(owner(data.join("..")), (0, 200_000), "its root can get there");
    world.remove_pod(&pod).expect("remove");
}

#[test]
fn whatever_fails_nothing_of_them_is_left() {
    let prepare = |world: &World| {
        let content = image(world, &["/data", "/absent"]);
        fs::create_dir_all(content.join("data/sub")).expect("mkdir");
        fs::write(content.join("data/sub/file"), "x").expect("write");
        world.pod("a")
    };
    let verb = |world: &World, pod: &String| world.create(request(pod)).map(drop);
    assert!(creates_all_or_nothing(prepare, verb) >= 3);
}

#[test]
fn those_of_a_daemon_that_was_killed_are_swept() {
    let mut world = World::new();
    let orphan = world.dir.path().join("root/containers").join("f".repeat(64));
    fs::create_dir_all(orphan.join("volumes/0").join("d/".repeat(500))).expect("mkdir");
    symlink("/etc", orphan.join("volumes/0/link")).expect("symlink");
    world.restart();
    assert!(!orphan.exists());
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
