#include <algorithm>
#include <cmath>

#include "kernels/canon.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/kernels.h"
#include "kernels/sample.h"

namespace fathom::kernels {
namespace {

// If fewer than one in kFewKept tokens is kept, noise is computed for the kept tokens one by one.
constexpr size_t kFewKept = 16;

// Does the same as SampleRef, with vector passes over the vocabulary, and with selections instead
// of sorts.
class CpuSampler {
 public:
  CpuSampler(const SampleArgs& args, const CpuKernels& kernels)
      : args_(args),
        kernels_(kernels),
        z_(args.scratch->z),
        mass_(args.scratch->mass),
        kept_(args.scratch->kept) {
    z_.assign(args.logits.begin(), args.logits.end());
  }

  int32_t Sample() {
    AdjustLogits();
    const float best = Best();
    if (best == -INFINITY) return -1;
    if (canon::IsGreedy(args_.params.temperature)) return IdOf(best);
    kernels_.temper(z_.data(), count(), args_.params.temperature);
    if (!Narrow()) {
      kernels_.add_noise(z_.data(), count(), args_.seed, args_.sequence, args_.position);
      return IdOf(Best());
    }
    return SampleKept();
  }

 private:
  int64_t count() const { return static_cast<int64_t>(z_.size()); }
  float& z(int32_t id) { return z_[static_cast<size_t>(id)]; }
  uint64_t mass(int32_t id) const { return mass_[static_cast<size_t>(id)]; }
  float Best() const { return kernels_.max(z_.data(), count()); }
  // The lowest id with this value.
  int32_t IdOf(float value) const {
    return static_cast<int32_t>(std::find(z_.begin(), z_.end(), value) - z_.begin());
  }

  void AdjustLogits() {
    for (const auto& [id, bias] : args_.bias) z(id) += bias;
    for (const int32_t id : args_.banned) z(id) = -INFINITY;
    ApplyMask();
    if (args_.params.repetition_penalty == 1.0f && args_.params.frequency_penalty == 0.0f &&
        args_.params.presence_penalty == 0.0f) {
      return;
    }
    for (const SeenToken& seen : args_.seen) {
      z(seen.id) = canon::Penalized(z(seen.id), seen.output_count, args_.params.repetition_penalty,
                                    args_.params.frequency_penalty, args_.params.presence_penalty);
    }
  }

  // A word with all bits set, or with none, is the usual case.
  void ApplyMask() {
    for (size_t word = 0; word < args_.mask.size(); ++word) {
      const uint32_t bits = args_.mask[word];
      if (bits == ~0u) continue;
      const size_t begin = word * 32, end = std::min(begin + 32, z_.size());
      for (size_t i = begin; i < end; ++i) {
        z_[i] = (bits >> (i - begin) & 1) != 0 ? z_[i] : -INFINITY;
      }
    }
  }

  // Leaves in kept_ the tokens that top_k, top_p, min_p and typical_p keep. Returns false if all of
  // them are off.
  bool Narrow() {
    const bool top_k = args_.params.top_k > 0 && args_.params.top_k < count();
    const bool masses =
        args_.params.top_p < 1.0f || args_.params.min_p > 0.0f || args_.params.typical_p < 1.0f;
    if (!top_k && !masses) return false;
    kept_.resize(z_.size());
    for (size_t i = 0; i < kept_.size(); ++i) kept_[i] = static_cast<int32_t>(i);
    const float best = Best();
    if (top_k) KeepTopK();
    if (masses) {
      mass_.resize(z_.size());
      kernels_.masses(z_.data(), count(), best, mass_.data());
    }
    if (args_.params.top_p < 1.0f) KeepTopP();
    if (args_.params.min_p > 0.0f) {
      std::erase_if(kept_,
                    [this](int32_t id) { return !canon::HasMinP(mass(id), args_.params.min_p); });
    }
    if (args_.params.typical_p < 1.0f) KeepTypical(best);
    return true;
  }

  void KeepTopK() {
    std::nth_element(kept_.begin(), kept_.begin() + args_.params.top_k - 1, kept_.end(),
                     [this](int32_t a, int32_t b) { return z(a) != z(b) ? z(a) > z(b) : a < b; });
    kept_.resize(static_cast<size_t>(args_.params.top_k));
  }

  // Keeps the shortest prefix by (mass descending, id ascending) whose sum reaches the target.
  void KeepTopP() {
    DropMassless();
    uint64_t total = 0;
    for (const int32_t id : kept_) total += mass(id);
    kept_.resize(PrefixOf(
        canon::MassTarget(args_.params.top_p, total),
        [this](int32_t a, int32_t b) { return mass(a) != mass(b) ? mass(a) > mass(b) : a < b; }));
  }

  // Keeps the tokens up to the least distance at which their sum reaches the target.
  void KeepTypical(float best) {
    DropMassless();
    uint64_t total = 0, gaps = 0;
    for (const int32_t id : kept_) {
      total += mass(id);
      gaps += canon::WeightedGap(mass(id), canon::Gap(z(id), best));
    }
    const auto distance = [this, best, mean = canon::MeanGap(gaps, total)](int32_t id) {
      return canon::DistanceOf(canon::Gap(z(id), best), mean);
    };
    const size_t prefix = PrefixOf(canon::MassTarget(args_.params.typical_p, total),
                                   [&](int32_t a, int32_t b) { return distance(a) < distance(b); });
    uint64_t farthest = 0;
    for (size_t i = 0; i < prefix; ++i) farthest = std::max(farthest, distance(kept_[i]));
    std::erase_if(kept_, [&](int32_t id) { return distance(id) > farthest; });
  }

  void DropMassless() {
    std::erase_if(kept_, [this](int32_t id) { return mass(id) == 0; });
  }

  // Moves the shortest prefix by the order whose sum of masses reaches the target to the front of
  // kept_ and returns its length. The prefix is found by halving: each turn moves the first half of
  // the undecided tokens to the front and compares its sum.
  template <class Before>
  size_t PrefixOf(uint64_t target, Before before) {
    uint64_t sum = 0;  // The sum of [0, begin), which is kept. Tokens from `end` on are dropped.
    size_t begin = 0, end = kept_.size();
    while (end - begin > 1) {
      const size_t middle = begin + (end - begin) / 2;
      const auto first = kept_.begin() + static_cast<int64_t>(begin);
      std::nth_element(first, kept_.begin() + static_cast<int64_t>(middle),
                       kept_.begin() + static_cast<int64_t>(end), before);
      uint64_t front = 0;
      for (size_t i = begin; i < middle; ++i) front += mass(kept_[i]);
      if (sum + front >= target) {
        end = middle;
      } else {
        sum += front;
        begin = middle;
      }
    }
    return end;
  }

  int32_t SampleKept() {
    if (kept_.size() < z_.size() / kFewKept) {
      int32_t chosen = -1;
      float best = -INFINITY;
      for (const int32_t id : kept_) {
        const float noisy = z(id) + canon::Noise(args_.seed, args_.sequence, args_.position, id);
        if (chosen < 0 || noisy > best || (noisy == best && id < chosen)) {
          chosen = id;
          best = noisy;
        }
      }
      return chosen;
    }
    kernels_.add_noise(z_.data(), count(), args_.seed, args_.sequence, args_.position);
    int32_t chosen = kept_.front();
    for (const int32_t id : kept_) {
      if (z(id) > z(chosen) || (z(id) == z(chosen) && id < chosen)) chosen = id;
    }
    return chosen;
  }

  const SampleArgs& args_;
  const CpuKernels& kernels_;
  std::vector<float>& z_;
  std::vector<uint64_t>& mass_;
  std::vector<int32_t>& kept_;
};

}  // namespace

int32_t SampleCpu(const SampleArgs& args) {
  const CpuKernels* kernels = SelectedCpuKernels();
  return kernels == nullptr ? SampleRef(args) : CpuSampler(args, *kernels).Sample();
}

}  // namespace fathom::kernels
