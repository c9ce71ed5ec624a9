// SHA-256 of a few KiB, by the OpenSSL in Node's own program.
//
// EVP_Digest() and SHA256() look the algorithm up and allocate for each call, which costs about as much as 1 KiB of
// hashing. These three functions do neither. They are declared here because the headers of OpenSSL are not where every
// Node has its headers; their context has had this size since OpenSSL 0.9.8.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
int SHA256_Init(void* context);
int SHA256_Update(void* context, const void* bytes, size_t count);
int SHA256_Final(unsigned char* hash, void* context);
}

struct Sha256 {
  static constexpr size_t kBytes = 32;

  static void Of(const uint8_t* bytes, size_t count, uint8_t* hash) {
    // 112 bytes: 8 words of state, the length, one block, and two numbers.
    alignas(8) uint8_t context[128];
    SHA256_Init(context);
    SHA256_Update(context, bytes, count);
    SHA256_Final(hash, context);
  }
};
