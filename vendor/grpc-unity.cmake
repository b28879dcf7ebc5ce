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

# gRPC's two timer lists look after each of their shards once a second, even where there is no timer: several wake-ups a
# second of a daemon that has nothing to do. The window is their bound between a timer that is kept sorted and one that is
# looked at later; with five minutes, longer than any deadline of the kubelet, they sleep until a timer is due.
function(cricket_let_timers_sleep)
  set(root "${CMAKE_CURRENT_SOURCE_DIR}")
  foreach(source src/core/lib/iomgr/timer_generic.cc src/core/lib/event_engine/posix_engine/timer.cc)
    file(READ "${root}/${source}" text)
    set(window "(QUEUE_WINDOW_DURATION |QueueWindowDuration = )(0\\.01|1\\.0)")
    string(REGEX MATCHALL "${window}" found "${text}")
    list(LENGTH found count)
    if(NOT count EQUAL 2)
      message(FATAL_ERROR "${source}: ${count} of its 2 windows found: adapt ${CMAKE_CURRENT_FUNCTION} to this gRPC")
    endif()
    string(REGEX REPLACE "${window}" "\\1300.0" text "${text}")
    set(changed "${CMAKE_CURRENT_BINARY_DIR}/${source}")
    file(CONFIGURE OUTPUT "${changed}" CONTENT "@text@" @ONLY)
    foreach(target grpc grpc_unsecure)
      get_target_property(sources ${target} SOURCES)
      list(TRANSFORM sources REPLACE "^${source}$" "${changed}")
      set_target_properties(${target} PROPERTIES SOURCES "${sources}")
    endforeach()
  endforeach()
endfunction()
cmake_language(DEFER CALL cricket_let_timers_sleep)
