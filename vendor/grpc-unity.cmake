# gRPC sources that must stay translation units of their own: generated C, and files whose static names collide.
file(GLOB_RECURSE alone
    "${CMAKE_CURRENT_SOURCE_DIR}/src/core/ext/upb-generated/*.c"
    "${CMAKE_CURRENT_SOURCE_DIR}/src/core/ext/upbdefs-generated/*.c"
    "${CMAKE_CURRENT_SOURCE_DIR}/third_party/upb/*.c")
foreach(name
    ext/transport/chttp2/transport/bin_encoder.cc
    lib/event_engine/posix_engine/ev_poll_posix.cc
    lib/iomgr/ev_poll_posix.cc
    lib/iomgr/ev_posix.cc
    lib/security/credentials/alts/grpc_alts_credentials_server_options.cc
    tsi/local_transport_security.cc)
  list(APPEND alone "${CMAKE_CURRENT_SOURCE_DIR}/src/core/${name}")
endforeach()
set_source_files_properties(${alone} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
