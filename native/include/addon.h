// What the add-ons of this folder share. Arguments as TypeScript hands them over, checked: what does not fit is a bug of
// the caller, and throws. And system errors in Node's own shape.
#pragma once

#include <uv.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

#include <napi.h>

// A whole number in [min, max].
inline double WholeNumber(const Napi::CallbackInfo& info, size_t i, double min, double max,
                          const char* name) {
  if (i < info.Length() && info[i].IsNumber()) {
    const double value = info[i].As<Napi::Number>().DoubleValue();
    if (value >= min && value <= max && value == std::floor(value)) return value;
  }
  throw Napi::RangeError::New(info.Env(), name);
}

template <typename Array>
Array TypedArray(const Napi::CallbackInfo& info, size_t i, napi_typedarray_type type,
                 const char* name) {
  if (i < info.Length() && info[i].IsTypedArray() &&
      info[i].As<Napi::TypedArray>().TypedArrayType() == type) {
    return info[i].As<Array>();
  }
  throw Napi::TypeError::New(info.Env(), name);
}

inline Napi::Function Callback(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (i < info.Length() && info[i].IsFunction()) return info[i].As<Napi::Function>();
  throw Napi::TypeError::New(info.Env(), name);
}

// Calls back from the event loop, in a HandleScope. What the function throws is nobody's to catch, as of any callback of
// Node's. A thread that is being terminated takes no calls, which is no error; Napi::Function's own way then ends the
// process, for it cannot make the exception that it wants to throw.
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

// { code, errno, syscall }. `number` is positive.
inline Napi::Error SystemError(Napi::Env env, const char* name, int number) {
  const char* code = uv_err_name(-number);
  auto error = Napi::Error::New(env, std::string(code) + ": " + strerror(number) + ", " + name);
  error.Set("code", code);
  error.Set("errno", static_cast<double>(-number));
  error.Set("syscall", name);
  return error;
}
