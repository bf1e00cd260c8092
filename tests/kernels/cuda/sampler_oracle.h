// tests/kernels/cuda/sampler_oracle.h: random rows for the sampler's kernels, and the host's result
// for them: SampleRef's token, log-probabilities by a plain loop over 1,024 lanes, faults, and the
// state that a row leaves in its slot. Only tests of the sampler include it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "kernels/canon.h"
#include "kernels/cuda/sampler/sampler.h"
#include "kernels/sample.h"

namespace fathom::gpu_test {

using kernels::cuda::kLogprobsMax;
using kernels::cuda::SampleOut;
using kernels::cuda::SampleRow;
using kernels::cuda::SamplerSlot;

// max + log(sum exp(z - max)) as defined in docs/NUMERICS.md, "The CUDA recipe".
inline float LogSumExpByLanes(std::span<const float> z) {
  namespace canon = kernels::canon;
  const float best = *std::max_element(z.begin(), z.end());
  std::vector<float> lanes(1024);
  for (size_t id = 0; id < z.size(); ++id) lanes[id % 1024] += canon::Exp(z[id] - best);
  for (size_t distance = 16; distance > 0; distance /= 2) {
    const std::vector<float> before = lanes;
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = before[i] + before[i ^ distance];
  }
  float sum = 0;
  for (size_t group = 0; group < lanes.size(); group += 32) sum += lanes[group];
  return best + canon::Log(sum);
}

// Everything that a launch reads, and the state of the slots, on the host.
struct Batch {
  int vocab = 0;
  std::vector<float> logits;  // [rows][vocab]
  std::vector<SampleRow> rows;
  std::vector<SamplerSlot> slots;
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  std::vector<int32_t> end_ids;
  std::vector<uint32_t> masks;  // [masks][words of the vocabulary]
  std::vector<uint16_t> seen;   // [slots][vocab]
  std::vector<int32_t> slot_tokens;
  std::vector<int32_t> slot_faults;
  std::vector<kernels::ThinkingSlot> slot_thinking;
  std::vector<int32_t> faults;

  std::span<float> Logits(int row) {
    return std::span<float>(logits).subspan(static_cast<size_t>(row) * vocab, vocab);
  }
  size_t MaskWords() const { return (static_cast<size_t>(vocab) + 31) / 32; }
  std::span<uint16_t> Seen(int slot) {
    return std::span<uint16_t>(seen).subspan(static_cast<size_t>(slot) * vocab, vocab);
  }
};

inline void FillLogits(std::span<float> z, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  const int kind = static_cast<int>(random() % 8);
  for (float& value : z) {
    value = normal(random);
    if (kind <= 2) value *= 3.0f;
    if (kind == 3) value = std::round(value * 2.0f) / 2.0f;  // Ties.
    if (kind == 4) value *= 20.0f;                           // A peak.
    if (kind == 5) value = 4.0f;
    if (kind == 6) value = 50.0f + value * 1e-4f;
    if (kind == 7) value = random() % 2 == 0 ? 0.0f : -0.0f;
  }
}

template <class T>
T Pick(std::mt19937_64& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

inline SamplerSlot RandomSlot(Batch* batch, int id, std::mt19937_64& random) {
  SamplerSlot slot;
  slot.seed = random();
  slot.sequence = static_cast<int32_t>(random() % 3);
  slot.params.temperature = Pick(random, {0.0f, 0.01f, 0.7f, 1.0f, 1.0f, 1.5f});
  slot.params.top_p = Pick(random, {0.0f, 0.01f, 0.5f, 0.95f, 1.0f, 1.0f, 1.0f});
  slot.params.min_p = Pick(random, {0.0f, 0.0f, 0.05f, 1.0f});
  slot.params.typical_p = Pick(random, {0.01f, 0.3f, 0.9f, 0.999f, 1.0f, 1.0f, 1.0f, 1.0f});
  slot.params.top_k = Pick(random, {0, 0, 1, 5, 50, 1000, batch->vocab - 1, batch->vocab + 5});
  slot.penalized = static_cast<uint16_t>(random() % 2);
  slot.params.repetition_penalty = Pick(random, {1.0f, 1.2f, 0.8f});
  slot.params.presence_penalty = Pick(random, {0.0f, 0.5f, -1.0f});
  slot.params.frequency_penalty = Pick(random, {0.0f, 0.3f, -0.2f});
  slot.min_tokens = Pick(random, {0, 0, 100});
  slot.bias_begin = static_cast<int32_t>(batch->bias_ids.size());
  slot.end_begin = static_cast<int32_t>(batch->end_ids.size());
  const bool biased = random() % 3 == 0;
  for (int32_t token = 0; token < batch->vocab; ++token) {
    if (biased && random() % 64 == 0) {
      batch->bias_ids.push_back(token);
      batch->bias_values.push_back(Pick(random, {-100.0f, 3.5f, 100.0f, -INFINITY}));
    }
    if (random() % 512 == 0) batch->end_ids.push_back(token);
    if (random() % 4 == 0) {
      batch->Seen(id)[static_cast<size_t>(token)] =
          static_cast<uint16_t>(0x8000 | Pick(random, {0, 0, 1, 2, 7, 0x7FFF}));
    }
  }
  slot.bias_count = static_cast<int32_t>(batch->bias_ids.size()) - slot.bias_begin;
  slot.end_count =
      static_cast<uint16_t>(static_cast<int32_t>(batch->end_ids.size()) - slot.end_begin);
  return slot;
}

// Half of the slots have a budget of reasoning, in every state.
inline kernels::ThinkingSlot RandomThinking(int vocab, std::mt19937_64& random) {
  kernels::ThinkingSlot slot;
  if (random() % 2 == 0) return slot;
  slot.begin = static_cast<int32_t>(random() % vocab);
  slot.end = static_cast<int32_t>(random() % vocab);
  slot.budget = Pick(random, {0, 1, 5, 100});
  slot.state = Pick(random, {kernels::kThinkingWaits, kernels::kThinkingOver, 0, 0, 3, 90});
  return slot;
}

// A mask with words of all kinds; now and then one that allows nothing. Returns its index.
inline int32_t AddMask(Batch* batch, std::mt19937_64& random) {
  const auto index = static_cast<int32_t>(batch->masks.size() / batch->MaskWords());
  const bool none = random() % 16 == 0;
  for (size_t word = 0; word < batch->MaskWords(); ++word) {
    const auto some = static_cast<uint32_t>(random());
    batch->masks.push_back(none ? 0 : Pick(random, {0u, 0u, ~0u, some, some & (some >> 7)}));
  }
  return index;
}

// `count` rows with a slot each; most of them sample; the parameters are of all kinds.
inline Batch RandomBatch(int vocab, int count, std::mt19937_64& random) {
  Batch batch;
  batch.vocab = vocab;
  const auto rows = static_cast<size_t>(count);
  batch.logits.resize(rows * static_cast<size_t>(vocab));
  batch.seen.resize(rows * static_cast<size_t>(vocab));
  batch.slot_tokens.assign(rows, -7);
  batch.slot_faults.assign(rows, 0);
  batch.faults.assign(rows, 0);
  for (int i = 0; i < count; ++i) {
    FillLogits(batch.Logits(i), random);
    batch.slots.push_back(RandomSlot(&batch, i, random));
    batch.slot_thinking.push_back(RandomThinking(vocab, random));
    SampleRow row;
    row.logits_row = count - 1 - i;
    row.fault_row = i;
    row.slot = (i + 3) % count;
    row.position = static_cast<int32_t>(random() % 200);
    row.logprobs = Pick(random, {-1, -1, 0, 1, 5, kLogprobsMax});
    if (random() % 6 == 0) row.target = static_cast<int32_t>(random() % vocab);
    if (count > 1 && random() % 16 == 0) row.logits_row = -1;
    if (random() % 3 == 0) row.mask = AddMask(&batch, random);
    batch.rows.push_back(row);
  }
  return batch;
}

// SampleCpu equals SampleRef (tests/kernels/sample_test.cc). It is used for vocabularies for which
// SampleRef, which is quadratic, is too slow.
inline int32_t WantToken(Batch* batch, const SampleRow& row) {
  const kernels::ThinkingSlot& thinking = batch->slot_thinking[static_cast<size_t>(row.slot)];
  if (kernels::ForcesThinkingEnd(thinking, row.position)) return thinking.end;
  const SamplerSlot& slot = batch->slots[static_cast<size_t>(row.slot)];
  std::vector<std::pair<int32_t, float>> bias;
  for (int i = slot.bias_begin; i < slot.bias_begin + slot.bias_count; ++i) {
    bias.emplace_back(batch->bias_ids[static_cast<size_t>(i)],
                      batch->bias_values[static_cast<size_t>(i)]);
  }
  std::span<const int32_t> banned;
  if (row.position < slot.min_tokens) {
    banned = std::span<const int32_t>(batch->end_ids)
                 .subspan(static_cast<size_t>(slot.end_begin), static_cast<size_t>(slot.end_count));
  }
  std::vector<kernels::SeenToken> seen;
  if (slot.penalized != 0) {
    const std::span<const uint16_t> table = batch->Seen(row.slot);
    for (size_t id = 0; id < table.size(); ++id) {
      if ((table[id] & 0x8000) != 0) seen.push_back({static_cast<int32_t>(id), table[id] & 0x7FFF});
    }
  }
  kernels::SampleScratch scratch;
  kernels::SampleArgs args;
  args.logits = batch->Logits(row.logits_row);
  args.params = slot.params;
  args.bias = bias;
  args.banned = banned;
  if (row.mask >= 0) {
    args.mask =
        std::span<const uint32_t>(batch->masks)
            .subspan(static_cast<size_t>(row.mask) * batch->MaskWords(), batch->MaskWords());
  }
  args.seen = seen;
  args.seed = slot.seed;
  args.sequence = slot.sequence;
  args.position = row.position;
  args.scratch = &scratch;
  return batch->vocab <= 4096 ? kernels::SampleRef(args) : kernels::SampleCpu(args);
}

// The expected result of the row; the state of its slot in `batch` is updated. Alternatives that
// are not written keep the values of `before`.
inline SampleOut Want(Batch* batch, const SampleRow& row, const SampleOut& before) {
  SampleOut want = before;
  if (row.logits_row < 0) return want;
  const std::span<const float> z = batch->Logits(row.logits_row);
  const auto slot = static_cast<size_t>(row.slot);
  const bool finite = std::all_of(z.begin(), z.end(), [](float x) { return std::isfinite(x); });
  want.fault = batch->faults[static_cast<size_t>(row.fault_row)] | batch->slot_faults[slot];
  if (!finite) want.fault |= kernels::cuda::kFaultNonFinite;
  want.logprob = 0;
  want.token = row.target;
  if (want.fault == 0 && row.target < 0) want.token = WantToken(batch, row);
  if (want.fault == 0 && (want.token < 0 || want.token >= batch->vocab)) {
    want.fault = kernels::cuda::kFaultTokenRange;
  }
  if (want.fault != 0) want.token = -1;
  batch->slot_faults[slot] |= want.fault;
  if (row.target < 0) batch->slot_tokens[slot] = std::max(want.token, 0);
  if (want.fault != 0) return want;
  if (row.target < 0) {
    kernels::ThinkingSlot& thinking = batch->slot_thinking[slot];
    thinking.state = kernels::ThinkingAfter(thinking, want.token, row.position);
  }
  if (row.target < 0 && batch->slots[slot].penalized != 0) {
    uint16_t& seen = batch->Seen(row.slot)[static_cast<size_t>(want.token)];
    seen = static_cast<uint16_t>(0x8000 | std::min((seen & 0x7FFF) + 1, 0x7FFF));
  }
  if (row.target < 0 && row.logprobs < 0) return want;
  const float log_sum = LogSumExpByLanes(z);
  want.logprob = z[static_cast<size_t>(want.token)] - log_sum;
  std::vector<int32_t> order(z.size());
  for (size_t id = 0; id < order.size(); ++id) order[id] = static_cast<int32_t>(id);
  const int tops = std::min(std::max(row.logprobs, 0), batch->vocab);
  std::partial_sort(order.begin(), order.begin() + tops, order.end(), [&](int32_t a, int32_t b) {
    const float za = z[static_cast<size_t>(a)], zb = z[static_cast<size_t>(b)];
    return za != zb ? za > zb : a < b;
  });
  for (int i = 0; i < tops; ++i) {
    want.top_ids[i] = order[static_cast<size_t>(i)];
    want.top_logprobs[i] = z[static_cast<size_t>(want.top_ids[i])] - log_sum;
  }
  return want;
}

}  // namespace fathom::gpu_test
