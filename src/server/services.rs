//! The table RPC → verb.

use cricket_proto::methods::{image_service, runtime_service};

use super::{encoded, State, Table};
use crate::runtime::Runtime;
use crate::{container, image, node, sandbox};

impl State for Runtime {
    fn not_ready(&self) -> Option<String> {
        Runtime::not_ready(self)
    }
}

/// Both services of the CRI. What has no verb is answered `Unimplemented`. Those answered at once never leave the
/// process; only the verbose form of a container's or image's status, which people ask for, calls containerd.
pub fn cri(table: Table<Runtime>) -> Table<Runtime> {
    table
        .instant(&runtime_service::VERSION, node::version)
        .quick(&runtime_service::STATUS, node::status)
        .instant(&runtime_service::RUNTIME_CONFIG, node::runtime_config)
        .quick(&runtime_service::UPDATE_RUNTIME_CONFIG, node::update_runtime_config)
        .unary(&runtime_service::RUN_POD_SANDBOX, sandbox::run)
        .unary(&runtime_service::STOP_POD_SANDBOX, sandbox::stop)
        .unary(&runtime_service::REMOVE_POD_SANDBOX, sandbox::remove)
        .instant(&runtime_service::POD_SANDBOX_STATUS, sandbox::status)
        .instant(&encoded(&runtime_service::LIST_POD_SANDBOX), sandbox::list)
        .stream(&encoded(&runtime_service::STREAM_POD_SANDBOXES), |rt, _, request, out| {
            sandbox::stream(rt, request, &mut |part| out.send(part))
        })
        .unary(&runtime_service::UPDATE_POD_SANDBOX_RESOURCES, sandbox::update_resources)
        .stream(&runtime_service::GET_CONTAINER_EVENTS, |rt, call, request, out| {
            sandbox::events(rt, call, request, &mut |event| out.send(event))
        })
        .unary(&runtime_service::POD_SANDBOX_STATS, sandbox::stats)
        .unary(&runtime_service::LIST_POD_SANDBOX_STATS, sandbox::list_stats)
        .stream(&runtime_service::STREAM_POD_SANDBOX_STATS, |rt, call, request, out| {
            sandbox::stream_stats(rt, call, request, &mut |part| out.send(part))
        })
        .instant(&runtime_service::LIST_METRIC_DESCRIPTORS, sandbox::list_metric_descriptors)
        .unary(&encoded(&runtime_service::LIST_POD_SANDBOX_METRICS), sandbox::list_metrics)
        .stream(&encoded(&runtime_service::STREAM_POD_SANDBOX_METRICS), |rt, call, request, out| {
            sandbox::stream_metrics(rt, call, request, &mut |part| out.send(part))
        })
        .unary(&runtime_service::CREATE_CONTAINER, container::create)
        .unary(&runtime_service::START_CONTAINER, container::start)
        .unary(&runtime_service::STOP_CONTAINER, container::stop)
        .unary(&runtime_service::REMOVE_CONTAINER, container::remove)
        .unary(&runtime_service::UPDATE_CONTAINER_RESOURCES, container::update_resources)
        .instant(&encoded(&runtime_service::LIST_CONTAINERS), container::list)
        .stream(&encoded(&runtime_service::STREAM_CONTAINERS), |rt, _, request, out| {
            container::stream(rt, request, &mut |part| out.send(part))
        })
        .instant_unless(|q| q.verbose, &runtime_service::CONTAINER_STATUS, container::status)
        .unary(&runtime_service::EXEC_SYNC, container::exec_sync)
        .quick(&runtime_service::EXEC, container::exec)
        .quick(&runtime_service::ATTACH, container::attach)
        .quick(&runtime_service::PORT_FORWARD, sandbox::port_forward)
        .unary(&runtime_service::REOPEN_CONTAINER_LOG, container::reopen_log)
        .unary(&runtime_service::CONTAINER_STATS, container::stats)
        .unary(&runtime_service::LIST_CONTAINER_STATS, container::list_stats)
        .stream(&runtime_service::STREAM_CONTAINER_STATS, |rt, call, request, out| {
            container::stream_stats(rt, call, request, &mut |part| out.send(part))
        })
        .instant(&image_service::LIST_IMAGES, image::list_images)
        .instant_unless(|q| q.verbose, &image_service::IMAGE_STATUS, image::image_status)
        .stream(&image_service::STREAM_IMAGES, |rt, _, request, out| {
            image::stream_images(rt, request, &mut |part| out.send(part))
        })
        .unary(&image_service::PULL_IMAGE, image::pull_image)
        .unary(&image_service::REMOVE_IMAGE, image::remove_image)
        .unary(&image_service::IMAGE_FS_INFO, image::image_fs_info)
        .rest(runtime_service::ALL)
        .rest(image_service::ALL)
}
