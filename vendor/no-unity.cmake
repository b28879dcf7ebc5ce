# The names of this project's sources collide when they share a translation unit.
set(CMAKE_UNITY_BUILD OFF)
