// Argument checks, callbacks and errors shared by the add-ons. Arguments come from TypeScript, which has checked their
// types: a wrong one is a bug of the caller, and throws a TypeError or RangeError that names the argument.
#pragma once

#include <uv.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>

#include <napi.h>

// The largest integer up to which a double holds every integer.
constexpr double kSafeIntegerMax = 9007199254740991.0;

// A whole number in [min, max].
inline double WholeNumber(const Napi::Value& value, double min, double max, const char* name) {
  double number;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok) {
    throw Napi::TypeError::New(value.Env(), name);
  }
  // Negated, because all comparisons with NaN are false.
  if (!(number >= min && number <= max && number == std::floor(number))) {
    throw Napi::RangeError::New(value.Env(), name);
  }
  return number;
}

inline double WholeNumber(const Napi::CallbackInfo& info, size_t i, double min, double max,
                          const char* name) {
  return WholeNumber(info[i], min, max, name);
}

// Like WholeNumber(), as an unsigned integer.
template <typename T>
T Unsigned(const Napi::CallbackInfo& info, size_t i, double max, const char* name) {
  return static_cast<T>(WholeNumber(info[i], 0, max, name));
}

inline int FileDescriptor(const Napi::CallbackInfo& info, size_t i) {
  return static_cast<int>(WholeNumber(info[i], 0, INT32_MAX, "fd"));
}

inline bool Boolean(const Napi::CallbackInfo& info, size_t i, const char* name) {
  bool value;
  if (napi_get_value_bool(info.Env(), info[i], &value) == napi_ok) return value;
  throw Napi::TypeError::New(info.Env(), name);
}

// A string without a zero byte, where a system call would end it.
inline std::string Text(const Napi::Value& value, const char* name) {
  if (!value.IsString()) throw Napi::TypeError::New(value.Env(), name);
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) throw Napi::RangeError::New(value.Env(), name);
  return text;
}

template <typename T>
inline constexpr napi_typedarray_type kTypedArrayOf = napi_uint8_array;
template <>
inline constexpr napi_typedarray_type kTypedArrayOf<int32_t> = napi_int32_array;
template <>
inline constexpr napi_typedarray_type kTypedArrayOf<uint32_t> = napi_uint32_array;
template <>
inline constexpr napi_typedarray_type kTypedArrayOf<double> = napi_float64_array;

// The memory of a typed array, for the duration of the call: uint8_t, int32_t, uint32_t or double.
template <typename T>
std::span<T> Elements(const Napi::CallbackInfo& info, size_t i, const char* name) {
  napi_typedarray_type type;
  size_t length;
  void* data;
  if (napi_get_typedarray_info(info.Env(), info[i], &type, &length, &data, nullptr, nullptr) !=
          napi_ok ||
      type != kTypedArrayOf<T>) {
    throw Napi::TypeError::New(info.Env(), name);
  }
  return {static_cast<T*>(data), length};
}

// A Uint8Array that the add-on keeps a reference of.
inline Napi::Uint8Array ByteArray(const Napi::CallbackInfo& info, size_t i, const char* name) {
  Elements<uint8_t>(info, i, name);
  return info[i].As<Napi::Uint8Array>();
}

inline Napi::Function Callback(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (info[i].IsFunction()) return info[i].As<Napi::Function>();
  throw Napi::TypeError::New(info.Env(), name);
}

// Calls a function from the event loop, in a HandleScope. An exception that it throws is uncaught, as in any callback of
// Node. A thread that is being terminated takes no calls, which is no error; Napi::Function::MakeCallback() would end the
// process there, because it cannot create the exception that it wants to throw.
inline void CallBack(const Napi::FunctionReference& function,
                     std::initializer_list<napi_value> arguments, napi_async_context context) {
  const napi_env env = function.Env();
  napi_value global;
  napi_value result;
  if (napi_get_global(env, &global) != napi_ok) return;
  if (napi_make_callback(env, context, global, function.Value(), arguments.size(),
                         arguments.begin(), &result) == napi_ok) {
    return;
  }
  bool thrown = false;
  napi_value error;
  if (napi_is_exception_pending(env, &thrown) == napi_ok && thrown &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok) {
    napi_fatal_exception(env, error);
  }
}

// An error in the shape of Node's own, { code, errno, syscall }. `number` is positive. `detail`: the kernel's own words.
inline Napi::Error SystemError(Napi::Env env, const std::string& syscall, int number,
                               const std::string& detail = {}) {
  const char* code = uv_err_name(-number);
  std::string text = std::string(code) + ": " + strerror(number) + ", " + syscall;
  if (!detail.empty()) text += ": " + detail;
  auto error = Napi::Error::New(env, text);
  error.Set("code", code);
  error.Set("errno", static_cast<double>(-number));
  error.Set("syscall", syscall);
  return error;
}
