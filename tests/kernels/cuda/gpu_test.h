// tests/kernels/cuda/gpu_test.h: helpers for tests of device code: buffers with guard bytes, seeded
// random values, conversions of elements on the host, comparison by ==, and the launch context.
// Only .cu files of GPU tests include it. One thread; everything runs on Stream(), which is ordered
// with the copies of the default stream.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/base/launch.h"

#define EXPECT_CUDA(expression)                                                                    \
  do {                                                                                             \
    const cudaError_t cuda_error_ = (expression);                                                  \
    EXPECT_EQ(cudaSuccess, cuda_error_) << #expression << ": " << cudaGetErrorString(cuda_error_); \
  } while (0)
#define ASSERT_CUDA(expression)                                                                    \
  do {                                                                                             \
    const cudaError_t cuda_error_ = (expression);                                                  \
    ASSERT_EQ(cudaSuccess, cuda_error_) << #expression << ": " << cudaGetErrorString(cuda_error_); \
  } while (0)

namespace fathom::gpu_test {

using kernels::DType;
using kernels::cuda::LaunchContext;

// --- Device and launch context ---

inline cudaStream_t Stream() {
  static cudaStream_t stream = [] {
    cudaStream_t s = nullptr;
    EXPECT_CUDA(cudaStreamCreate(&s));
    return s;
  }();
  return stream;
}
// `dependent`: programmatic dependent launch; a test launches two ops one after the other.
inline LaunchContext MakeContext(bool dependent = false) {
  LaunchContext context;
  context.stream = Stream();
  context.dependent = dependent;
  int major = 0, minor = 0;
  EXPECT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  EXPECT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  EXPECT_CUDA(cudaDeviceGetAttribute(&context.sms, cudaDevAttrMultiProcessorCount, 0));
  context.sm = major * 10 + minor;
  return context;
}
inline int SharedBytesMax() {  // The limit of one thread block.
  int bytes = 0;
  EXPECT_CUDA(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  return bytes;
}
inline void Finish() { ASSERT_CUDA(cudaStreamSynchronize(Stream())); }

// --- Elements on the host ---

template <class T>
float ToFloat(T x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __bfloat162float(x);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __half2float(x);
  } else {
    return static_cast<float>(x);
  }
}
template <class T>
T FromFloat(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return static_cast<T>(x);
  }
}
template <class T>
constexpr DType DTypeOf() {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return DType::kBf16;
  if constexpr (std::is_same_v<T, __half>) return DType::kF16;
  return DType::kF32;
}
template <class T>
double HalfUlp() {  // Of a value in [1, 2): the relative error of one rounding.
  return std::is_same_v<T, __nv_bfloat16> ? 0x1p-8 : std::is_same_v<T, __half> ? 0x1p-11 : 0x1p-24;
}
// For typed tests: TYPED_TEST_SUITE(MyTest, gpu_test::ElementTypes).
using ElementTypes = ::testing::Types<__nv_bfloat16, __half>;

// --- Memory ---

// `count` elements on the device between two guards. New memory is filled with 0xFF bytes, a NaN in
// every type. The destructor checks the guards.
template <class T>
class DeviceBuffer {
 public:
  static constexpr int64_t kGuardBytes = 1024;
  static constexpr int kGuardByte = 0xA5;

  explicit DeviceBuffer(int64_t count) : count_(count) {
    EXPECT_CUDA(cudaMalloc(&base_, bytes() + 2 * kGuardBytes));
    if (base_ == nullptr) return;
    EXPECT_CUDA(cudaMemset(base_, kGuardByte, kGuardBytes));
    EXPECT_CUDA(cudaMemset(base_ + kGuardBytes + bytes(), kGuardByte, kGuardBytes));
    Poison();
  }
  explicit DeviceBuffer(const std::vector<T>& values)
      : DeviceBuffer(static_cast<int64_t>(values.size())) {
    Upload(values);
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() {
    CheckGuards();
    EXPECT_CUDA(cudaFree(base_));
  }

  T* get() const { return reinterpret_cast<T*>(base_ + kGuardBytes); }
  int64_t count() const { return count_; }
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }

  void Poison() { Set(0xFF); }
  void Zero() { Set(0); }
  void Set(int byte) { EXPECT_CUDA(cudaMemset(get(), byte, bytes())); }
  void Upload(const std::vector<T>& values) {
    ASSERT_EQ(static_cast<int64_t>(values.size()), count_);
    EXPECT_CUDA(cudaMemcpy(get(), values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> Download() const {
    std::vector<T> values(count_);
    EXPECT_CUDA(cudaMemcpy(values.data(), get(), bytes(), cudaMemcpyDeviceToHost));
    return values;
  }
  void CheckGuards() const {
    if (base_ == nullptr) return;
    CheckGuard(base_, "before");
    CheckGuard(base_ + kGuardBytes + bytes(), "after");
  }

 private:
  void CheckGuard(const char* guard, const char* where) const {
    unsigned char found[kGuardBytes];
    EXPECT_CUDA(cudaMemcpy(found, guard, kGuardBytes, cudaMemcpyDeviceToHost));
    for (int64_t i = 0; i < kGuardBytes; ++i) {
      if (found[i] == kGuardByte) continue;
      ADD_FAILURE() << "a buffer of " << count_ << " elements: byte " << i << " of the guard "
                    << where << " it was written";
      return;
    }
  }

  char* base_ = nullptr;
  int64_t count_ = 0;
};

// --- Random values ---

// FATHOM_SEED or a fixed seed; printed once.
inline uint64_t Seed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("FATHOM_SEED");
    const uint64_t s = text != nullptr ? std::strtoull(text, nullptr, 10) : 20261125;
    std::printf("FATHOM_SEED=%llu\n", static_cast<unsigned long long>(s));
    return s;
  }();
  return seed;
}

// Normally distributed values with the given deviation, made on the host. For up to some millions
// of values.
template <class T>
std::vector<T> RandomNormal(int64_t count, float deviation, uint64_t salt, float mean = 0) {
  std::mt19937_64 generator(Seed() * 1000003 + salt);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<T> values(count);
  for (T& v : values) v = FromFloat<T>(normal(generator));
  return values;
}

// About normally distributed values (the sum of four uniform ones), made on the device, for whole
// weight matrices.
template <class T>
__global__ void FillNormalKernel(T* to, int64_t count, float deviation, uint64_t seed) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint64_t z = seed + static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15ull;  // SplitMix64.
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    int sum = 0;
    for (int part = 0; part < 4; ++part) sum += static_cast<int>((z >> (16 * part)) & 0xFFFF);
    const float x = (static_cast<float>(sum) * (1.0f / 65536.0f) - 2.0f) * 1.7320508f * deviation;
    if constexpr (std::is_same_v<T, float>) {
      to[i] = x;
    } else if constexpr (std::is_same_v<T, __half>) {
      to[i] = __float2half_rn(x);
    } else {
      to[i] = __float2bfloat16_rn(x);
    }
  }
}
template <class T>
void FillNormal(T* to, int64_t count, float deviation, uint64_t salt) {
  FillNormalKernel<T><<<1024, 256, 0, Stream()>>>(to, count, deviation, Seed() * 1000003 + salt);
  EXPECT_CUDA(cudaGetLastError());
}
template <class T>
void FillNormal(const DeviceBuffer<T>& to, float deviation, uint64_t salt) {
  FillNormal(to.get(), to.count(), deviation, salt);
}

// --- Under compute-sanitizer ---

// With compute-sanitizer a launch takes up to a thousand times as long. With FATHOM_SANITIZED in
// the environment (tests/gpu, part `sanitizer`), tests use fewer and narrower shapes: the same
// instances, pipelines, tails and waits, on fewer tiles.
inline bool Sanitized() {
  static const bool sanitized = [] {
    const bool is = std::getenv("FATHOM_SANITIZED") != nullptr;
    if (is) std::printf("FATHOM_SANITIZED: fewer and narrower shapes\n");
    return is;
  }();
  return sanitized;
}
// The entries of a table to test: all, or the first, the middle and the last one.
template <class Table, class Entry = std::decay_t<decltype(*std::begin(std::declval<Table&>()))>>
std::vector<Entry> Cases(const Table& table) {
  const std::vector<Entry> all(std::begin(table), std::end(table));
  if (!Sanitized() || all.size() <= 3) return all;
  return {all.front(), all[all.size() / 2], all.back()};
}
template <class Entry>
std::vector<Entry> Cases(std::initializer_list<Entry> table) {
  return Cases<std::initializer_list<Entry>, Entry>(table);
}
// The width to test for a published width: itself, or an eighth, as a multiple of 128.
inline int Width(int published) {
  return Sanitized() ? std::max(128, published / 8 / 128 * 128) : published;
}
inline int Times(int repetitions) { return Sanitized() ? std::min(repetitions, 4) : repetitions; }
// Divides heads and kv heads by the same number, so that groups keep their size.
template <class Shape>
Shape FewerHeads(Shape shape) {
  for (int i = 0; i < 3 && Sanitized() && shape.heads % 2 == 0 && shape.kv_heads % 2 == 0; ++i) {
    shape.heads /= 2;
    shape.kv_heads /= 2;
  }
  return shape;
}

// --- Comparison ---

// Equal by == (the sign of a zero has no meaning, a NaN never equals). The first differences are
// reported with their index and, with `width`, their row and column.
template <class T>
void ExpectSameBits(const std::vector<T>& got, const std::vector<T>& want, const std::string& what,
                    int64_t width = 0) {
  ASSERT_EQ(got.size(), want.size()) << what;
  int64_t different = 0;
  std::ostringstream first;
  for (size_t i = 0; i < got.size(); ++i) {
    const float a = ToFloat(got[i]), b = ToFloat(want[i]);
    const bool same =
        std::is_integral_v<T> ? std::memcmp(&got[i], &want[i], sizeof(T)) == 0 : a == b;
    if (same) continue;
    if (++different > 8) continue;
    first << "  [" << i << "]";
    if (width > 0) first << " (row " << i / width << ", " << i % width << ")";
    first << ": got " << a << ", want " << b << "\n";
  }
  EXPECT_EQ(different, 0) << what << ": of " << got.size() << ", the first:\n" << first.str();
}
template <class T>
void ExpectSameBits(const DeviceBuffer<T>& got, const DeviceBuffer<T>& want,
                    const std::string& what, int64_t width = 0) {
  Finish();
  ExpectSameBits(got.Download(), want.Download(), what, width);
}

// The number of different values among `count`, counted on the device, for outputs too large to
// copy to the host.
template <class T>
__global__ void CountDifferentKernel(const T* a, const T* b, int64_t count,
                                     unsigned long long* different) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  unsigned long long mine = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    if (!(static_cast<float>(a[i]) == static_cast<float>(b[i]))) ++mine;
  }
  if (mine != 0) atomicAdd(different, mine);
}
template <class T>
int64_t CountDifferent(const T* a, const T* b, int64_t count) {
  DeviceBuffer<unsigned long long> different(1);
  different.Zero();
  CountDifferentKernel<T><<<1024, 256, 0, Stream()>>>(a, b, count, different.get());
  EXPECT_CUDA(cudaGetLastError());
  EXPECT_CUDA(cudaStreamSynchronize(Stream()));
  return static_cast<int64_t>(different.Download()[0]);
}

// |got - want| <= absolute + relative * |want| for each value.
template <class T>
void ExpectNear(const std::vector<T>& got, const std::vector<double>& want, double relative,
                double absolute, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  int64_t beyond = 0;
  std::ostringstream first;
  for (size_t i = 0; i < got.size(); ++i) {
    const double a = ToFloat(got[i]);
    if (std::abs(a - want[i]) <= absolute + relative * std::abs(want[i])) continue;
    if (++beyond <= 8) first << "  [" << i << "]: got " << a << ", want " << want[i] << "\n";
  }
  EXPECT_EQ(beyond, 0) << what << ": of " << got.size() << ", the first:\n" << first.str();
}

}  // namespace fathom::gpu_test
