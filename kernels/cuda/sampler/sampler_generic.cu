#include "kernels/cuda/sampler/sampler_pick.h"
#include "kernels/cuda/sampler/sampler_rows.cuh"
#include "kernels/cuda/sampler/sampler_select.cuh"
#include "kernels/cuda/sampler/sampler_thinking.cuh"

namespace fathom::kernels::cuda {
namespace {

// One thread block samples a row and stores nothing of the row: each pass over the vocabulary
// computes the scores from the logits again. Thread i has the ids i, i + 1,024, ..., so reads are
// coalesced, and a thread is a lane of the sum for log-probabilities.

constexpr int kThreads = kSampleLanes;
static_assert(kThreads == kGenericSampleThreads);
static_assert(kThreads == 32 * 32, "A warp reduces what the warps found.");
static_assert(kSelectBins <= kThreads, "A thread has at most a bin.");

struct Shared {
  BinCounters bins;
  BinSearch search;
  uint64_t warps[32];
  float groups[32];  // Sums of exp of 32 lanes.
  int fault;
  int forced;  // The token that is drawn whatever the scores are; -1: none.
  SamplerSlot slot;
};

template <class F>
FATHOM_DEVICE void ForIds(int vocab, F f) {
  for (int id = static_cast<int>(threadIdx.x); id < vocab; id += kThreads) f(id);
}

// Reduces all threads' values with `op` and gives the result to all of them. A barrier.
template <class Op>
FATHOM_DEVICE uint64_t Reduce(Shared* shared, uint64_t x, Op op) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x = op(x, __shfl_xor_sync(~0u, x, distance));
  }
  __syncthreads();  // All threads have read the old values of `warps`.
  if (lane == 0) shared->warps[warp] = x;
  __syncthreads();
  x = shared->warps[lane];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x = op(x, __shfl_xor_sync(~0u, x, distance));
  }
  return x;
}
FATHOM_DEVICE uint64_t Larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
FATHOM_DEVICE uint64_t ReduceMax(Shared* shared, uint64_t x) {
  return Reduce(shared, x, [](uint64_t a, uint64_t b) { return Larger(a, b); });
}
FATHOM_DEVICE uint64_t ReduceSum(Shared* shared, uint64_t x) {
  return Reduce(shared, x, [](uint64_t a, uint64_t b) { return a + b; });
}

// --- Scores ---

// The scores of a row as docs/NUMERICS.md, "Sampler" defines them, up to the temperature.
struct Scores {
  RowLogits logits;
  const int32_t* bias_ids = nullptr;  // Ascending.
  const float* bias_values = nullptr;
  const int32_t* banned = nullptr;
  const uint32_t* mask = nullptr;  // Null: none.
  const uint16_t* seen = nullptr;  // Null: no penalties.
  const SamplerSlot* slot = nullptr;
  int bias_count = 0;
  int banned_count = 0;
  int vocab = 0;

  __device__ __forceinline__ float Biased(float z, int32_t id) const {
    int first = 0, end = bias_count;  // The first entry not below `id` is in [first, end].
    while (first < end) {
      const int middle = (first + end) / 2;
      if (bias_ids[middle] < id) {
        first = middle + 1;
      } else {
        end = middle;
      }
    }
    if (first == bias_count || bias_ids[first] != id) return z;
    return __fadd_rn(z, bias_values[first]);
  }
  __device__ __forceinline__ float operator()(int32_t id) const {
    float z = logits[id];
    if (bias_count > 0) z = Biased(z, id);
    for (int i = 0; i < banned_count; ++i) {
      if (banned[i] == id) z = -INFINITY;
    }
    if (mask != nullptr && IsMasked(mask, id)) z = -INFINITY;
    if (seen != nullptr) z = Penalized(z, seen[id], *slot);
    const float temperature = slot->params.temperature;
    if (canon::IsGreedy(temperature) || temperature == 1.0f) return z;
    return canon::Tempered(z, temperature);
  }
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    ForIds(vocab, [&](int id) { f(id, (*this)(id)); });
  }
};

FATHOM_DEVICE Scores ScoresOf(const SamplerArgs& a, const SampleRow& ask, const SamplerSlot& slot) {
  Scores scores{LogitsOf(a, ask)};
  scores.bias_ids = a.bias_ids + slot.bias_begin;
  scores.bias_values = a.bias_values + slot.bias_begin;
  scores.banned = a.end_ids + slot.end_begin;
  scores.mask = MaskOf(a, ask);
  if (slot.penalized != 0) scores.seen = a.seen + int64_t{ask.slot} * a.vocab;
  scores.slot = &slot;
  scores.bias_count = slot.bias_count;
  scores.banned_count = ask.position < slot.min_tokens ? slot.end_count : 0;
  scores.vocab = a.vocab;
  return scores;
}

// --- Selection ---

// The scores of the kept ids; the scores of all other ids are -inf.
struct Kept {
  Scores scores;
  float best = 0;  // The largest score.
  bool has_k = false;
  bool has_p = false;
  bool has_typical = false;
  Cut k;            // The cut by ScoreKey.
  Cut p;            // Of MassKey; an id without a mass is not kept.
  float min_p = 0;  // 0: off.
  uint64_t mean_gap = 0;
  uint64_t least_typical = 0;  // Of TypicalKey; an id without a mass is not kept.

  __device__ __forceinline__ float operator()(int32_t id) const {
    const float z = scores(id);
    if (has_k && !Keeps(k, ScoreKey(z, best), id)) return -INFINITY;
    if (!has_p && min_p <= 0.0f && !has_typical) return z;
    const uint64_t mass = MassOf(z, best);
    if (has_p && (mass == 0 || !Keeps(p, MassKey(mass), id))) return -INFINITY;
    if (min_p > 0.0f && !canon::HasMinP(mass, min_p)) return -INFINITY;
    if (has_typical && (mass == 0 || TypicalKey(z, best, mean_gap) < least_typical)) {
      return -INFINITY;
    }
    return z;
  }
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    ForIds(scores.vocab, [&](int id) { f(id, (*this)(id)); });
  }
};

// The histogram of the thread block (kernels/cuda/sampler/sampler_select.cuh).
struct BlockBins {
  Shared* shared;
  template <bool kMasses>
  __device__ __forceinline__ void Clear() const {
    ClearBins<kMasses>(Own());
    __syncthreads();
  }
  __device__ __forceinline__ BinCounters* Own() const { return &shared->bins; }
  template <bool kMasses>
  __device__ __forceinline__ FoundBin Find(uint64_t target) const {
    __syncthreads();
    const int bin = kSelectBins - 1 - static_cast<int>(threadIdx.x);
    uint32_t count = 0;
    uint64_t weight = 0;
    if (bin >= 0) AddBin<kMasses>(*Own(), bin, &count, &weight);
    return ScanBins(&shared->search, count, weight, target);
  }
};

// Applies top_k, top_p, min_p and typical_p of the slot. Returns false if every score is -inf.
FATHOM_DEVICE bool Restrict(Shared* shared, Kept* kept) {
  const SamplerSlot& slot = shared->slot;
  const int vocab = kept->scores.vocab;
  const bool by_k = slot.params.top_k > 0 && slot.params.top_k < vocab;
  if (!by_k && slot.params.top_p >= 1.0f && slot.params.min_p <= 0.0f &&
      slot.params.typical_p >= 1.0f) {
    return true;
  }
  uint64_t most = 0;
  ForIds(vocab, [&](int id) { most = Larger(most, Orderable(kept->scores(id))); });
  kept->best = FromOrderable(static_cast<uint32_t>(ReduceMax(shared, most)));
  if (kept->best == -INFINITY) return false;
  BlockBins bins{shared};
  if (by_k) {
    const ScoreKeys keys{&kept->scores, kept->best};
    kept->k = Select(&bins, keys, AllScores(static_cast<uint64_t>(slot.params.top_k)));
    kept->has_k = true;
  }
  if (slot.params.top_p < 1.0f) {
    const MassKeys keys{kept, kept->best};
    uint64_t sum = 0;
    keys.ForEach([&](uint64_t, uint64_t mass, int) { sum += mass; });
    const uint64_t target = canon::MassTarget(slot.params.top_p, ReduceSum(shared, sum));
    kept->p = Select(&bins, keys, {MassKey(1), MassKey(canon::kMassOne), target});
    kept->has_p = true;
  }
  kept->min_p = slot.params.min_p;
  if (slot.params.typical_p < 1.0f) {
    const GapSums mine = SumGaps(*kept, kept->best);
    const uint64_t masses = ReduceSum(shared, mine.masses);
    kept->mean_gap = canon::MeanGap(ReduceSum(shared, mine.gaps), masses);
    const TypicalKeys keys{kept, kept->best, kept->mean_gap};
    const uint64_t target = canon::MassTarget(slot.params.typical_p, masses);
    kept->least_typical = LeastKey(&bins, keys, {0, kDistanceKeyMax, target});
    kept->has_typical = true;
  }
  return true;
}

// --- The row ---

// The id that is drawn, for all threads; -1 if every score is -inf. A barrier.
FATHOM_DEVICE int32_t Draw(Shared* shared, const Scores& scores, int position) {
  const SamplerSlot& slot = shared->slot;
  uint64_t drawn = 0;
  if (canon::IsGreedy(slot.params.temperature)) {
    ForIds(scores.vocab, [&](int id) { drawn = Larger(drawn, PlaceKey(scores(id), id)); });
  } else {
    Kept kept{scores};
    if (!Restrict(shared, &kept)) return -1;
    ForIds(scores.vocab, [&](int id) {
      const float z = kept(id);
      if (z == -INFINITY) return;
      const float noise = canon::Noise(slot.seed, slot.sequence, position, id);
      drawn = Larger(drawn, PlaceKey(__fadd_rn(z, noise), id));
    });
  }
  drawn = ReduceMax(shared, drawn);
  return drawn >> 32 > Orderable(-INFINITY) ? IdOfPlace(drawn) : -1;
}

// log(sum exp(z)) of the raw logits, for all threads; `best` is the largest logit. A barrier.
FATHOM_DEVICE float LogSumExp(Shared* shared, const RowLogits& logits, int vocab, float best) {
  float sum = 0;
  ForIds(vocab, [&](int id) { sum = __fadd_rn(sum, canon::Exp(__fsub_rn(logits[id], best))); });
  sum = SumGroup(sum);
  if (threadIdx.x % 32 == 0) shared->groups[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (const float group : shared->groups) sum = __fadd_rn(sum, group);
  return __fadd_rn(best, canon::Log(sum));
}

// Writes the `count` best tokens by (z descending, id ascending). Each pass finds the largest key
// below the previous one.
FATHOM_DEVICE void WriteTops(Shared* shared, const RowLogits& logits, int vocab, int count,
                             float log_sum, SampleOut* out) {
  uint64_t last = ~uint64_t{0};
  for (int i = 0; i < count; ++i) {
    uint64_t next = 0;
    ForIds(vocab, [&](int id) {
      const uint64_t key = PlaceKey(logits[id], id);
      if (key < last) next = Larger(next, key);
    });
    last = ReduceMax(shared, next);
    if (threadIdx.x != 0) continue;
    out->top_ids[i] = IdOfPlace(last);
    out->top_logprobs[i] = __fsub_rn(FromOrderable(static_cast<uint32_t>(last >> 32)), log_sum);
  }
}

// The largest logit, for all threads. A logit that is not finite is a fault.
FATHOM_DEVICE float Check(Shared* shared, const RowLogits& logits, int vocab, int* fault) {
  float best = -INFINITY;
  bool finite = true;
  ForIds(vocab, [&](int id) {
    best = canon::Max(best, logits[id]);
    if (kRowFaults) finite = finite && canon::IsFinite(logits[id]);
  });
  if (__syncthreads_and(finite) == 0) *fault |= kFaultNonFinite;
  return FromOrderable(static_cast<uint32_t>(ReduceMax(shared, Orderable(best))));
}

__global__ void __launch_bounds__(kThreads)
    SampleGenericKernel(const __grid_constant__ SamplerArgs a) {
  __shared__ Shared shared;
  WaitForPrevious();
  LetNextStart();
  const int index = RowOfBlock(a, blockIdx.x);
  const SampleRow ask = a.rows[index];
  if (ask.logits_row < 0) return;
  if (threadIdx.x == 0) {
    shared.slot = a.slots[ask.slot];
    shared.forced = ForcedToken(a.slot_thinking, ask);
    // One thread reads the fault words for all, because they may change meanwhile: other rows of
    // the slot may fault.
    shared.fault = kRowFaults ? a.faults[ask.fault_row] | a.slot_faults[ask.slot] : 0;
  }
  __syncthreads();
  const Scores scores = ScoresOf(a, ask, shared.slot);
  int fault = shared.fault;
  const float best = Check(&shared, scores.logits, a.vocab, &fault);
  const bool draws = ask.target < 0, keeps = ask.target != kTargetDrafted;
  int32_t token = ask.target < a.vocab ? ask.target : -1;
  if (draws && fault == 0) {
    token = shared.forced >= 0 ? shared.forced : Draw(&shared, scores, ask.position);
  }
  if (fault == 0 && token < 0) fault = kFaultTokenRange;

  SampleOut* const out = a.out + index;
  if (threadIdx.x == 0) {
    out->token = fault == 0 ? token : -1;
    out->fault = fault;
    if (fault != 0 && keeps) atomicOr(a.slot_faults + ask.slot, fault);
    if (draws && keeps) a.slot_tokens[ask.slot] = fault == 0 ? token : 0;
    if (draws && keeps && fault == 0) NoteThinking(a.slot_thinking, ask, token);
    if (fault == 0 && draws && keeps && shared.slot.penalized != 0) {
      uint16_t* const seen = a.seen + int64_t{ask.slot} * a.vocab + token;
      *seen = SeenAgain(*seen);
    }
  }
  if (fault != 0 || (draws && ask.logprobs < 0)) {
    if (threadIdx.x == 0) out->logprob = 0;
    return;
  }
  const float log_sum = LogSumExp(&shared, scores.logits, a.vocab, best);
  if (threadIdx.x == 0) out->logprob = __fsub_rn(scores.logits[token], log_sum);
  const int tops = min(min(ask.logprobs, kLogprobsMax), a.vocab);
  WriteTops(&shared, scores.logits, a.vocab, tops, log_sum, out);
}

}  // namespace

cudaError_t SampleGeneric(const LaunchContext& context, const SamplerArgs& args) {
  const int rows = RowsOfLaunch(args);
  if (context.sm < 80 || args.vocab <= 0 || args.vocab > kSampleVocabMax || rows < 0) {
    return cudaErrorInvalidValue;
  }
  if (rows == 0) return cudaSuccess;
  return Launch(context, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, SampleGenericKernel,
                WithStride(args));
}

}  // namespace fathom::kernels::cuda
