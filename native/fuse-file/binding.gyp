{
  "targets": [{
    "target_name": "fuse-file",
    "type": "executable",
    "sources": [
      "src/fuse_channel.cc", "src/fuse_file.cc", "src/holder.cc", "src/loop_device.cc",
      "src/nbd_client.cc", "src/system.cc"
    ],
    "ldflags!": ["-rdynamic"],
    "ldflags": ["-Wl,--as-needed"],
    "cflags_cc": ["-std=c++20", "-O2", "-fno-threadsafe-statics", "-Wall", "-Wextra", "-Werror"]
  }]
}
