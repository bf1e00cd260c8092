#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/canon.h"
#include "kernels/sample.h"

namespace fathom::kernels {
namespace {

// The row's scores z and the set of kept tokens, changed step by step in the order of
// docs/NUMERICS.md.
class RefSampler {
 public:
  explicit RefSampler(const SampleArgs& args)
      : args_(args), z_(args.logits.begin(), args.logits.end()), kept_(z_.size()) {
    std::iota(kept_.begin(), kept_.end(), 0);
  }

  int32_t Sample() {
    AdjustLogits();
    const int32_t best = BestOf(z_);
    if (z(best) == -INFINITY) return -1;
    if (canon::IsGreedy(args_.params.temperature)) return best;
    for (float& value : z_) value = canon::Tempered(value, args_.params.temperature);
    KeepTopK();
    KeepTopP();
    KeepMinP();
    KeepTypical();
    std::vector<float> noisy(z_.size(), -INFINITY);
    for (const int32_t id : kept_) {
      noisy[static_cast<size_t>(id)] =
          z(id) + canon::Noise(args_.seed, args_.sequence, args_.position, id);
    }
    return BestOf(noisy);
  }

 private:
  float& z(int32_t id) { return z_[static_cast<size_t>(id)]; }

  // The lower id wins a tie.
  static int32_t BestOf(const std::vector<float>& values) {
    return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
  }

  void AdjustLogits() {
    for (const auto& [id, bias] : args_.bias) z(id) += bias;
    for (const int32_t id : args_.banned) z(id) = -INFINITY;
    for (size_t i = 0; !args_.mask.empty() && i < z_.size(); ++i) {
      if ((args_.mask[i / 32] >> (i % 32) & 1) == 0) z_[i] = -INFINITY;
    }
    for (const SeenToken& seen : args_.seen) {
      z(seen.id) = canon::Penalized(z(seen.id), seen.output_count, args_.params.repetition_penalty,
                                    args_.params.frequency_penalty, args_.params.presence_penalty);
    }
  }

  uint64_t MassOf(int32_t id) { return canon::Mass(z(id), z(BestOf(z_))); }

  void KeepTopK() {
    if (args_.params.top_k <= 0 || static_cast<size_t>(args_.params.top_k) >= kept_.size()) return;
    std::stable_sort(kept_.begin(), kept_.end(),
                     [this](int32_t a, int32_t b) { return z(a) > z(b); });
    kept_.resize(static_cast<size_t>(args_.params.top_k));
  }

  void KeepTopP() {
    if (args_.params.top_p >= 1.0f) return;
    std::vector<std::pair<uint64_t, int32_t>> order;
    uint64_t total = 0;
    for (const int32_t id : kept_) {
      order.emplace_back(MassOf(id), id);
      total += order.back().first;
    }
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    const uint64_t target = canon::MassTarget(args_.params.top_p, total);
    uint64_t sum = 0;
    kept_.clear();
    for (const auto& [mass, id] : order) {
      if (sum >= target) break;
      kept_.push_back(id);
      sum += mass;
    }
  }

  void KeepMinP() {
    if (args_.params.min_p <= 0.0f) return;
    std::erase_if(kept_,
                  [this](int32_t id) { return !canon::HasMinP(MassOf(id), args_.params.min_p); });
  }

  void KeepTypical() {
    if (args_.params.typical_p >= 1.0f) return;
    const float best = z(BestOf(z_));
    std::erase_if(kept_, [&](int32_t id) { return canon::Mass(z(id), best) == 0; });
    uint64_t masses = 0, gaps = 0;
    for (const int32_t id : kept_) {
      const uint64_t mass = canon::Mass(z(id), best);
      masses += mass;
      gaps += canon::WeightedGap(mass, canon::Gap(z(id), best));
    }
    const uint64_t mean_gap = canon::MeanGap(gaps, masses);
    const auto distance = [&](int32_t id) {
      return canon::DistanceOf(canon::Gap(z(id), best), mean_gap);
    };
    std::sort(kept_.begin(), kept_.end(),
              [&](int32_t a, int32_t b) { return distance(a) < distance(b); });
    const uint64_t target = canon::MassTarget(args_.params.typical_p, masses);
    uint64_t sum = 0, farthest = 0;
    for (const int32_t id : kept_) {
      if (sum >= target) break;
      sum += canon::Mass(z(id), best);
      farthest = distance(id);
    }
    std::erase_if(kept_, [&](int32_t id) { return distance(id) > farthest; });
  }

  const SampleArgs& args_;
  std::vector<float> z_;
  std::vector<int32_t> kept_;
};

}  // namespace

int32_t SampleRef(const SampleArgs& args) { return RefSampler(args).Sample(); }

}  // namespace fathom::kernels
