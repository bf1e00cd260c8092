// tests/kernels/cuda/sampler_on_device.h: a batch of tests/kernels/cuda/sampler_oracle.h in the
// memory of the device, and the comparison of results. For the tests of the sampler's kernels.
#pragma once

#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cuda/sampler/sampler.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/sampler_oracle.h"

namespace fathom::gpu_test {

// A batch on the device.
struct OnDevice {
  explicit OnDevice(const Batch& batch)
      : logits(batch.logits),
        rows(batch.rows),
        slots(batch.slots),
        bias_ids(AtLeastOne(batch.bias_ids)),
        bias_values(AtLeastOne(batch.bias_values)),
        end_ids(AtLeastOne(batch.end_ids)),
        masks(AtLeastOne(batch.masks)),
        seen(batch.seen),
        slot_tokens(batch.slot_tokens),
        slot_faults(batch.slot_faults),
        slot_thinking(batch.slot_thinking),
        faults(batch.faults),
        out(static_cast<int64_t>(batch.rows.size())) {
    args.logits.slices[0] = logits.get();
    args.rows = rows.get();
    args.slots = slots.get();
    args.bias_ids = bias_ids.get();
    args.bias_values = bias_values.get();
    args.end_ids = end_ids.get();
    args.masks = masks.get();
    args.seen = seen.get();
    args.slot_tokens = slot_tokens.get();
    args.slot_faults = slot_faults.get();
    args.slot_thinking = slot_thinking.get();
    args.faults = faults.get();
    args.out = out.get();
    args.count = static_cast<int>(batch.rows.size());
    args.slots_count = static_cast<int>(batch.slots.size());
    args.vocab = batch.vocab;
  }
  template <class T>
  static std::vector<T> AtLeastOne(std::vector<T> values) {
    if (values.empty()) values.push_back(T{});
    return values;
  }

  DeviceBuffer<float> logits;
  DeviceBuffer<SampleRow> rows;
  DeviceBuffer<SamplerSlot> slots;
  DeviceBuffer<int32_t> bias_ids;
  DeviceBuffer<float> bias_values;
  DeviceBuffer<int32_t> end_ids;
  DeviceBuffer<uint32_t> masks;
  DeviceBuffer<uint16_t> seen;
  DeviceBuffer<int32_t> slot_tokens;
  DeviceBuffer<int32_t> slot_faults;
  DeviceBuffer<kernels::ThinkingSlot> slot_thinking;
  DeviceBuffer<int32_t> faults;
  DeviceBuffer<SampleOut> out;
  kernels::cuda::SamplerArgs args;
};

inline void ExpectSameThinking(const OnDevice& device, const Batch& batch) {
  const std::vector<kernels::ThinkingSlot> got = device.slot_thinking.Download();
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].state, batch.slot_thinking[i].state) << "thinking of slot " << i;
  }
}

inline void ExpectSame(const SampleOut& got, const SampleOut& want, const std::string& what) {
  EXPECT_EQ(got.token, want.token) << what;
  EXPECT_EQ(got.fault, want.fault) << what;
  EXPECT_EQ(std::memcmp(&got.logprob, &want.logprob, sizeof(float)), 0)
      << what << ": log-probability " << got.logprob << ", want " << want.logprob;
  for (int i = 0; i < kLogprobsMax; ++i) {
    EXPECT_EQ(got.top_ids[i], want.top_ids[i]) << what << ", alternative " << i;
    EXPECT_EQ(std::memcmp(&got.top_logprobs[i], &want.top_logprobs[i], sizeof(float)), 0)
        << what << ", alternative " << i << ": " << got.top_logprobs[i] << ", want "
        << want.top_logprobs[i];
  }
}

inline std::string Describe(const Batch& batch, size_t index) {
  const SampleRow& row = batch.rows[index];
  const SamplerSlot& slot = batch.slots[static_cast<size_t>(row.slot)];
  std::ostringstream text;
  text << "row " << index << " of " << batch.rows.size() << ", vocab " << batch.vocab
       << ", temperature " << slot.params.temperature << ", top_k " << slot.params.top_k
       << ", top_p " << slot.params.top_p << ", min_p " << slot.params.min_p << ", typical_p "
       << slot.params.typical_p << ", penalized " << slot.penalized << ", biases "
       << slot.bias_count << ", target " << row.target << ", logprobs " << row.logprobs;
  return text.str();
}

}  // namespace fathom::gpu_test
