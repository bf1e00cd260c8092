// The tables of kernels/rope_kv_write.h. In double through libm: computed once per process, and
// rounded to fp32, which hides a libm's last bit but for ties nobody has seen.
#include <cmath>
#include <numbers>

#include "kernels/rope_kv_write.h"

namespace fathom::kernels {
namespace {

// Llama 3's rule: long wavelengths are stretched by `factor`, short ones kept, those between are
// blended.
double ScaleLlama3(const RopeSpec& spec, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength < spec.original_context / spec.high_freq_factor) return frequency;
  if (wavelength > spec.original_context / spec.low_freq_factor) return frequency / spec.factor;
  const double blend = (spec.original_context / wavelength - spec.low_freq_factor) /
                       (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0 - blend) * frequency / spec.factor + blend * frequency;
}

double InverseFrequency(const RopeSpec& spec, int32_t pair) {
  const double frequency = std::pow(spec.theta, -2.0 * pair / spec.head_dim);
  switch (spec.scaling) {
    case RopeSpec::Scaling::kNone:
      return frequency;
    case RopeSpec::Scaling::kLinear:
      return frequency / spec.factor;
    case RopeSpec::Scaling::kLlama3:
      return ScaleLlama3(spec, frequency);
  }
  return frequency;
}

}  // namespace

RopeTable MakeRopeTable(const RopeSpec& spec, int64_t positions) {
  const int32_t half = spec.head_dim / 2;
  RopeTable table;
  table.cos.resize(static_cast<size_t>(positions * half));
  table.sin.resize(table.cos.size());
  for (int32_t i = 0; i < half; ++i) {
    const double frequency = InverseFrequency(spec, i);
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      const size_t at = static_cast<size_t>(p * half + i);
      table.cos[at] = static_cast<float>(std::cos(angle));
      table.sin[at] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

}  // namespace fathom::kernels
