{
  "targets": [{
    "target_name": "zfile_codec",
    "sources": ["src/crc32c.cc", "src/zfile_codec.cc"],
    "include_dirs": ["../include", "<!@(node -p \"require('node-addon-api').include\")"],
    "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS"],
    "libraries": ["-llz4", "-lzstd"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
    "cflags_cc": [
      "-std=c++20", "-O2", "-fexceptions", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"
    ]
  }]
}
