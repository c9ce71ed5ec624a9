{
  "targets": [{
    "target_name": "ublk",
    "sources": ["src/control.cc", "src/queue.cc", "src/ring.cc", "src/ublk.cc"],
    "include_dirs": ["../include", "<!@(node -p \"require('node-addon-api').include\")"],
    "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
    "cflags_cc": [
      "-std=c++20", "-O2", "-fexceptions", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"
    ]
  }]
}
