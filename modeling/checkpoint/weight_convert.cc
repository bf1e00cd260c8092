#include "modeling/checkpoint/weight_convert.h"

#include <algorithm>
#include <cstring>

#include "kernels/canon.h"
#include "kernels/narrow.h"

namespace fathom {
namespace {

namespace canon = kernels::canon;
using kernels::DType;

// Loops over blocks of a fixed size become vector code.
constexpr int64_t kBlock = 512;

struct Bf16 {
  using Bits = uint16_t;
  static constexpr uint32_t kExponent = 0x7F80;
  static float Widen(Bits bits) { return canon::WidenBf16(bits); }
  static Bits Narrow(float value) { return kernels::NarrowBf16(value); }
};
struct F16 {
  using Bits = uint16_t;
  static constexpr uint32_t kExponent = 0x7C00;
  static float Widen(Bits bits) { return canon::WidenF16(bits); }
  static Bits Narrow(float value) { return kernels::NarrowF16(value); }
};
struct F32 {
  using Bits = uint32_t;
  static constexpr uint32_t kExponent = 0x7F800000;
  static float Widen(Bits bits) { return canon::FromBits(bits); }
  static Bits Narrow(float value) { return canon::Bits(value); }
};

template <class Type>
bool IsFinite(typename Type::Bits bits) {
  return (bits & Type::kExponent) != Type::kExponent;
}

template <class From, class To>
std::optional<int64_t> Convert(const std::byte* source, std::byte* target, int64_t count) {
  typename From::Bits in[kBlock] = {};
  typename To::Bits out[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t block = std::min(kBlock, count - begin);
    std::memcpy(in, source + begin * static_cast<int64_t>(sizeof(in[0])),
                static_cast<size_t>(block) * sizeof(in[0]));
    uint32_t not_finite = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      out[i] = To::Narrow(From::Widen(in[i]));
      not_finite |= IsFinite<To>(out[i]) ? 0u : 1u;
    }
    std::memcpy(target + begin * static_cast<int64_t>(sizeof(out[0])), out,
                static_cast<size_t>(block) * sizeof(out[0]));
    if (not_finite == 0) continue;
    for (int64_t i = 0; i < block; ++i) {
      if (IsFinite<From>(in[i]) && !IsFinite<To>(out[i])) return begin + i;
    }
  }
  return std::nullopt;
}

template <class From>
std::optional<int64_t> ConvertTo(DType type, const std::byte* source, std::byte* target,
                                 int64_t count) {
  if (type == DType::kBf16) return Convert<From, Bf16>(source, target, count);
  if (type == DType::kF16) return Convert<From, F16>(source, target, count);
  return Convert<From, F32>(source, target, count);
}

}  // namespace

DType DTypeOfStored(StoredType type) {
  return type == StoredType::kBf16  ? DType::kBf16
         : type == StoredType::kF16 ? DType::kF16
                                    : DType::kF32;
}

std::optional<int64_t> ConvertWeights(StoredType from, const std::byte* source, DType type,
                                      std::byte* target, int64_t count) {
  if (from == StoredType::kBf16) return ConvertTo<Bf16>(type, source, target, count);
  if (from == StoredType::kF16) return ConvertTo<F16>(type, source, target, count);
  return ConvertTo<F32>(type, source, target, count);
}

}  // namespace fathom
