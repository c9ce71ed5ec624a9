{
  "targets": [{
    "target_name": "read-pages",
    "type": "executable",
    "sources": ["src/file_blocks.cc", "src/frame.cc", "src/read_pages.cc"],
    "ldflags!": ["-rdynamic"],
    "ldflags": ["-Wl,--as-needed"],
    "cflags_cc": ["-std=c++20", "-O2", "-fno-threadsafe-statics", "-Wall", "-Wextra", "-Werror"]
  }]
}
