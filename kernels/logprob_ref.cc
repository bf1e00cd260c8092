#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/canon.h"
#include "kernels/logprob.h"

namespace fathom::kernels {
namespace {

float LogSumExp(std::span<const float> z, int32_t slices) {
  const float best = *std::max_element(z.begin(), z.end());
  const auto ranks = static_cast<size_t>(slices);
  const size_t slice_size = (z.size() + ranks - 1) / ranks;
  float sum = 0;
  for (size_t begin = 0; begin < z.size(); begin += slice_size) {
    float lanes[canon::kLanes] = {};
    for (size_t i = begin; i < std::min(begin + slice_size, z.size()); ++i) {
      lanes[(i - begin) % canon::kLanes] += canon::Exp(z[i] - best);
    }
    sum += canon::ReduceLanes(lanes);
  }
  return best + canon::Log(sum);
}

}  // namespace

float LogprobRef(const LogprobArgs& args) {
  const float lse = LogSumExp(args.logits, args.slices);
  std::vector<int32_t> order(args.logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto z = [&args](int32_t id) { return args.logits[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(), [&z](int32_t a, int32_t b) { return z(a) > z(b); });
  for (size_t i = 0; i < args.top_ids.size(); ++i) {
    args.top_ids[i] = order[i];
    args.top_logprobs[i] = z(order[i]) - lse;
  }
  return z(args.id) - lse;
}

}  // namespace fathom::kernels
