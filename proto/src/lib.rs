//! Wire contracts as Rust: the messages of the CRI (`runtime.v1`) and of the containerd services that cricket calls,
//! and a `grpcio::Method` constant for every RPC.
//!
//! Everything is generated from the `.proto` files in this folder by `build.rs`, in a crate of its own so that an
//! edit of the daemon does not compile these 60,000 lines again.

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::*;

/// One constant per gRPC method, one module per service.
pub mod methods {
    include!(concat!(env!("OUT_DIR"), "/methods.rs"));
}

/// A method of the protobuf codec.
const fn method<Q: protobuf::Message, R: protobuf::Message>(
    ty: grpcio::MethodType,
    name: &'static str,
) -> grpcio::Method<Q, R> {
    grpcio::Method {
        ty,
        name,
        req_mar: grpcio::Marshaller { ser: grpcio::pb_ser, de: grpcio::pb_de },
        resp_mar: grpcio::Marshaller { ser: grpcio::pb_ser, de: grpcio::pb_de },
    }
}
