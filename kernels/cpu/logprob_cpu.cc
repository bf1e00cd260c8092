#include <algorithm>

#include "kernels/canon.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/kernels.h"
#include "kernels/logprob.h"

namespace fathom::kernels {
namespace {

float LogSumExp(const CpuKernels& kernels, std::span<const float> z, int32_t slices) {
  const float best = kernels.max(z.data(), static_cast<int64_t>(z.size()));
  const auto size = static_cast<int64_t>(z.size());
  const int64_t slice_size = (size + slices - 1) / slices;
  float sum = 0;
  for (int64_t begin = 0; begin < size; begin += slice_size) {
    sum += kernels.sum_exp(z.data() + begin, std::min(slice_size, size - begin), best);
  }
  return best + canon::Log(sum);
}

// Keeps the best tokens so far in order. Ids ascend, so a later id with an equal logit goes behind.
void FillTop(std::span<const float> z, std::span<int32_t> ids, std::span<float> best) {
  size_t filled = 0;
  for (size_t id = 0; id < z.size(); ++id) {
    if (filled == ids.size() && (filled == 0 || z[id] <= best[filled - 1])) continue;
    size_t at = filled < ids.size() ? filled++ : filled - 1;
    for (; at > 0 && best[at - 1] < z[id]; --at) {
      best[at] = best[at - 1];
      ids[at] = ids[at - 1];
    }
    best[at] = z[id];
    ids[at] = static_cast<int32_t>(id);
  }
}

}  // namespace

float LogprobCpu(const LogprobArgs& args) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return LogprobRef(args);
  const float lse = LogSumExp(*kernels, args.logits, args.slices);
  if (!args.top_ids.empty()) FillTop(args.logits, args.top_ids, args.top_logprobs);
  for (float& value : args.top_logprobs) value -= lse;
  return args.logits[static_cast<size_t>(args.id)] - lse;
}

}  // namespace fathom::kernels
