// The tables of kernels/rope_kv_write.h. They are computed once per process in double with libm and
// rounded to fp32. So the last bit of a libm does not matter, except at a tie in this rounding; no
// such tie was found.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/rope_kv_write.h"

namespace fathom::kernels {
namespace {

// Llama 3's rule: `factor` stretches long wavelengths, short wavelengths stay, and those between
// are blended.
double ScaleLlama3(const RopeSpec& spec, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength < spec.original_context / spec.high_freq_factor) return frequency;
  if (wavelength > spec.original_context / spec.low_freq_factor) return frequency / spec.factor;
  const double blend = (spec.original_context / wavelength - spec.low_freq_factor) /
                       (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0 - blend) * frequency / spec.factor + blend * frequency;
}

// YaRN (Peng et al. 2023, section 3.2): the index, as a fraction, of the pair that turns `turns`
// times in the original context.
double PairOfTurns(const RopeSpec& spec, double turns) {
  return spec.head_dim * std::log(spec.original_context / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(spec.theta));
}

double ScaleYarn(const RopeSpec& spec, int32_t pair, double frequency) {
  double first = PairOfTurns(spec, spec.beta_fast);
  double last = PairOfTurns(spec, spec.beta_slow);
  if (spec.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, spec.head_dim - 1.0);
  if (first == last) last += 0.001;  // As in the published code; avoids a division by 0.
  const double keep = 1.0 - std::clamp((pair - first) / (last - first), 0.0, 1.0);
  // With a factor of 1 this form gives exactly the plain frequency, because keep + (1 - keep)
  // rounds to 1.
  return frequency * (keep + (1.0 - keep) / spec.factor);
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
    case RopeSpec::Scaling::kYarn:
      return ScaleYarn(spec, pair, frequency);
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
      table.cos[at] = static_cast<float>(std::cos(angle) * spec.attention_factor);
      table.sin[at] = static_cast<float>(std::sin(angle) * spec.attention_factor);
    }
  }
  return table;
}

}  // namespace fathom::kernels
