#include "worker/cuda/cuda_engine.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <thread>
#include <utility>

#include "common/check.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {

using kernels::cuda::BlockPair;
using kernels::cuda::SampleOut;
using kernels::cuda::SampleRow;
using kernels::cuda::SamplerSlot;

namespace {

int32_t PartialSegments(const CudaEngineParts& parts) {
  const int64_t bytes_each = WidestOf(*parts.model).heads * 2 * int64_t{sizeof(float)};
  return static_cast<int32_t>(parts.arenas->Bytes("partial_ml") / bytes_each);
}

kernels::cuda::BlockOpsArgs BlockOps(const CudaEngineParts& parts) {
  const KvPlane& first = parts.model->layers.front().attention.planes.front();
  const int64_t block_bytes = KvBytes({&first, 1}, kCudaElementBytes, kCudaBlockTokens);
  int32_t planes = 0;
  for (const RankLayer& layer : parts.model->layers) {
    for (const KvPlane& plane : layer.attention.planes) {
      FATHOM_CHECK(KvBytes({&plane, 1}, kCudaElementBytes, kCudaBlockTokens) == block_bytes,
                   "layer {}: block ops take planes of one size", layer.index);
      ++planes;
    }
  }
  return {.planes = parts.arenas->Buffer<void>("kv"),
          .planes_count = planes,
          .pool_blocks = parts.plan->limits.pool_blocks,
          .block_bytes = block_bytes};
}

RowFault FaultOf(int32_t bits) {
  if (bits & kernels::cuda::kFaultTokenRange) return RowFault::kTokenOutOfRange;
  if (bits & kernels::cuda::kFaultBlockRange) return RowFault::kBlockOutOfRange;
  return bits != 0 ? RowFault::kNonFiniteLogits : RowFault::kNone;
}

TokenLogprob LogprobOf(const SampleOut& out, TokenId id, int32_t top) {
  TokenLogprob scored;
  scored.id = id;
  scored.logprob = out.logprob;
  scored.top_ids.assign(out.top_ids, out.top_ids + top);
  scored.top_logprobs.assign(out.top_logprobs, out.top_logprobs + top);
  return scored;
}

int64_t ElapsedUs(cudaEvent_t from, cudaEvent_t to) {
  float ms = 0;
  FATHOM_CUDA(cudaEventElapsedTime(&ms, from, to));
  return static_cast<int64_t>(ms * 1000.0f);
}

}  // namespace

CudaEngine::CudaEngine(const CudaEngineParts& parts, const Seat& seat)
    : parts_(parts),
      seat_(seat),
      slots_(seat.limits),
      builder_(seat.limits, parts.plan->logits_rows, PartialSegments(parts),
               parts.use_graphs && !parts.diagnose),
      block_ops_(BlockOps(parts)),
      context_{.stream = parts.stream},
      free_(kCudaStepsInFlight),
      pending_(kCudaStepsInFlight),
      faulted_(static_cast<size_t>(seat.limits.slots) + 1) {
  for (int i = 0; i < kCudaStepsInFlight; ++i) FATHOM_CHECK(free_.TryPush(int{i}));
}

absl::Status CudaEngine::Run(const Epoch& epoch, StepChannel& channel,
                             const std::atomic<bool>& stop, const StepObserver& observer) {
  std::thread collector([&] { Collect(epoch, channel, observer); });
  absl::Status ended;
  while (!stop.load()) {
    const TimeUs begin = parts_.clock->Now();
    absl::StatusOr<StepPlan> plan = channel.Read();
    if (!plan.ok()) {
      ended = plan.status();
      break;
    }
    Pending pending;
    pending.stream.read_at_us = parts_.clock->Now();
    pending.stream.read_us = pending.stream.read_at_us - begin;
    pending.plan = *std::move(plan);
    const std::optional<int> buffer = free_.Pop();
    if (!buffer) break;  // The collector gave up.
    pending.buffer = *buffer;
    pending.stream.submit_from_us = parts_.clock->Now();
    if (ended = Submit(std::move(pending)); !ended.ok()) break;
  }
  pending_.Close();
  collector.join();
  FATHOM_CUDA(cudaStreamSynchronize(parts_.stream));
  parts_.progress->phase.store(WorkerPhase::kIdle);
  return epoch.aborted() ? epoch.status() : ended;
}

void CudaEngine::Entered() {
  const std::lock_guard lock(phase_mutex_);
  ++in_flight_;
  parts_.progress->phase.store(WorkerPhase::kStepping);
}

void CudaEngine::Left() {
  const std::lock_guard lock(phase_mutex_);
  if (--in_flight_ == 0) parts_.progress->phase.store(WorkerPhase::kIdle);
}

absl::Status CudaEngine::Submit(Pending pending) {
  const StepPlan& plan = pending.plan;
  if (plan.term != seat_.term || plan.epoch != seat_.epoch || plan.step != next_step_) {
    return Invalid("a plan of term {}, epoch {}, step {}; term {}, epoch {}, step {} was to come",
                   plan.term.value, plan.epoch.value, plan.step.value, seat_.term.value,
                   seat_.epoch.value, next_step_.value);
  }
  ++next_step_.value;
  Entered();
  parts_.progress->step.store(plan.step.value);
  parts_.progress->word.fetch_add(1);
  SetCudaStep(plan.step.value);
  const StepBuffers& buffers = (*parts_.buffers)[static_cast<size_t>(pending.buffer)];
  FATHOM_RETURN_IF_ERROR(ApplyDeltas(plan, buffers));
  BuiltStep& step = pending.step;
  FATHOM_RETURN_IF_ERROR(builder_.Build(plan, &slots_, buffers.input, &step));
  const cudaStream_t stream = parts_.stream;
  FATHOM_CUDA(cudaMemcpyAsync(parts_.arenas->Buffer<std::byte>("step_inputs"), buffers.input,
                              static_cast<size_t>(step.layout.bytes), cudaMemcpyHostToDevice,
                              stream));
  FATHOM_CUDA(cudaEventRecord(buffers.begin, stream));
  if (step.graphable) {
    parts_.graphs->Run(stream, step.shape,
                       [&](cudaStream_t to) { parts_.decoder->Enqueue(to, step.shape, {}); });
  } else {
    parts_.decoder->Enqueue(stream, step.shape, step.chunks);
  }
  FATHOM_CUDA(cudaMemcpyAsync(buffers.outputs, parts_.arenas->Buffer<SampleOut>("step_outputs"),
                              static_cast<size_t>(step.shape.samples) * sizeof(SampleOut),
                              cudaMemcpyDeviceToHost, stream));
  if (parts_.diagnose && step.shape.rows > 0) {
    FATHOM_CUDA(cudaMemcpyAsync(buffers.diagnosis, parts_.decoder->diagnosis(),
                                static_cast<size_t>(step.shape.rows) * sizeof(int32_t),
                                cudaMemcpyDeviceToHost, stream));
  }
  FATHOM_CUDA(cudaEventRecord(buffers.end, stream));
  pending.stream.graph = step.graphable;
  pending.stream.submit_end_us = parts_.clock->Now();
  FATHOM_CHECK(pending_.TryPush(std::move(pending)));  // As many places as buffers.
  return absl::OkStatus();
}

absl::Status CudaEngine::ApplyDeltas(const StepPlan& plan, const StepBuffers& buffers) {
  FATHOM_RETURN_IF_ERROR(CopyBlocks(plan));
  for (const SlotId id : plan.releases) {
    if (id.value >= 1 && id.value <= seat_.limits.slots &&
        faulted_[static_cast<size_t>(id.value)].exchange(false)) {
      ZeroBlocksOf(slots_.slot(id));
    }
    FATHOM_RETURN_IF_ERROR(slots_.Release(id));
  }
  int64_t used = 0;
  for (const Admit& admit : plan.admits) {
    FATHOM_RETURN_IF_ERROR(slots_.Seat(admit));
    FATHOM_RETURN_IF_ERROR(UploadSeat(admit, buffers, &used));
  }
  for (const Extend& extend : plan.extends) FATHOM_RETURN_IF_ERROR(slots_.Append(extend));
  return absl::OkStatus();
}

absl::Status CudaEngine::CopyBlocks(const StepPlan& plan) {
  std::vector<BlockPair> pairs;
  const auto flush = [&] {
    FATHOM_CUDA(kernels::cuda::CopyBlocks(context_, block_ops_, pairs.data(),
                                          static_cast<int>(pairs.size())));
    pairs.clear();
  };
  for (const BlockCopy& copy : plan.copies) {
    FATHOM_RETURN_IF_ERROR(slots_.CheckCopy(copy));
    const bool touched = std::any_of(pairs.begin(), pairs.end(), [&](const BlockPair& pair) {
      return pair.to == copy.from.value || pair.from == copy.to.value || pair.to == copy.to.value;
    });
    if (touched || std::ssize(pairs) == kernels::cuda::kBlockOpsMax) flush();
    pairs.push_back({copy.from.value, copy.to.value});
  }
  flush();
  return absl::OkStatus();
}

// What a faulted sequence wrote is nobody's any more: no later reader may meet it.
void CudaEngine::ZeroBlocksOf(const Slot& slot) {
  std::vector<int32_t> blocks;
  for (const BlockId block : slot.blocks) {
    if (block.value >= 1 && block.value < seat_.limits.pool_blocks) blocks.push_back(block.value);
  }
  for (size_t begin = 0; begin < blocks.size(); begin += kernels::cuda::kBlockOpsMax) {
    const size_t count = std::min<size_t>(kernels::cuda::kBlockOpsMax, blocks.size() - begin);
    FATHOM_CUDA(kernels::cuda::ZeroBlocks(context_, block_ops_, blocks.data() + begin,
                                          static_cast<int>(count)));
  }
}

absl::Status CudaEngine::Stage(const void* data, int64_t bytes, void* device,
                               const StepBuffers& buffers, int64_t* used) {
  if (bytes == 0) return absl::OkStatus();
  if (*used + bytes > parts_.seats_bytes) {
    return Invalid("the admits of one plan carry more than {} bytes", parts_.seats_bytes);
  }
  std::memcpy(buffers.seats + *used, data, static_cast<size_t>(bytes));
  FATHOM_CUDA(cudaMemcpyAsync(device, buffers.seats + *used, static_cast<size_t>(bytes),
                              cudaMemcpyHostToDevice, parts_.stream));
  *used += (bytes + 15) / 16 * 16;
  return absl::OkStatus();
}

absl::Status CudaEngine::UploadSeat(const Admit& admit, const StepBuffers& buffers, int64_t* used) {
  const DeviceArenas& arenas = *parts_.arenas;
  const Slot& slot = slots_.slot(admit.slot);
  const int32_t id = admit.slot.value;
  const auto sent_before = slot.length() - static_cast<int32_t>(admit.ids.size());
  if (sent_before == 0) {
    const SamplingParams& sampling = slot.request.sampling;
    const auto slots = int64_t{parts_.plan->limits.slots} + 1;
    const auto bias_max =
        static_cast<int32_t>(arenas.Bytes("bias_ids") / slots / int64_t{sizeof(int32_t)});
    const auto ends_max =
        static_cast<int32_t>(arenas.Bytes("end_ids") / slots / int64_t{sizeof(int32_t)});
    if (std::ssize(sampling.logit_bias) > bias_max || std::ssize(slot.end_ids) > ends_max) {
      return Invalid("slot {} has {} biases and {} end tokens; at most {} and {}", id,
                     sampling.logit_bias.size(), slot.end_ids.size(), bias_max, ends_max);
    }
    SamplerSlot seat;
    seat.seed = slot.seed;
    seat.sequence = slot.sequence;
    seat.temperature = sampling.temperature;
    seat.top_p = sampling.top_p;
    seat.min_p = sampling.min_p;
    seat.top_k = sampling.top_k;
    seat.repetition_penalty = sampling.repetition_penalty;
    seat.presence_penalty = sampling.presence_penalty;
    seat.frequency_penalty = sampling.frequency_penalty;
    seat.min_tokens = slot.request.stop.min_tokens;
    seat.bias_begin = id * bias_max;
    seat.bias_count = static_cast<int32_t>(sampling.logit_bias.size());
    seat.end_begin = id * ends_max;
    seat.end_count = static_cast<int32_t>(slot.end_ids.size());
    seat.penalized = slot.penalized() ? 1 : 0;
    FATHOM_RETURN_IF_ERROR(
        Stage(&seat, sizeof(seat), arenas.Buffer<SamplerSlot>("slot_params") + id, buffers, used));
    std::vector<int32_t> ids;
    std::vector<float> values;
    for (const auto& [token, bias] : sampling.logit_bias) {
      ids.push_back(token);
      values.push_back(bias);
    }
    const auto bytes = static_cast<int64_t>(ids.size() * sizeof(int32_t));
    FATHOM_RETURN_IF_ERROR(Stage(
        ids.data(), bytes, arenas.Buffer<int32_t>("bias_ids") + seat.bias_begin, buffers, used));
    FATHOM_RETURN_IF_ERROR(Stage(values.data(), bytes,
                                 arenas.Buffer<float>("bias_values") + seat.bias_begin, buffers,
                                 used));
    FATHOM_RETURN_IF_ERROR(
        Stage(slot.end_ids.data(), static_cast<int64_t>(slot.end_ids.size() * sizeof(int32_t)),
              arenas.Buffer<int32_t>("end_ids") + seat.end_begin, buffers, used));
    FATHOM_CUDA(cudaMemsetAsync(arenas.Buffer<int32_t>("slot_faults") + id, 0, sizeof(int32_t),
                                parts_.stream));
    faulted_[static_cast<size_t>(id)].store(false);
  }
  if (!slot.penalized() || slot.fault != RowFault::kNone) return absl::OkStatus();
  auto* const seen_ids = arenas.Buffer<int32_t>("seen_ids");
  FATHOM_RETURN_IF_ERROR(Stage(admit.ids.data(),
                               static_cast<int64_t>(admit.ids.size() * sizeof(int32_t)), seen_ids,
                               buffers, used));
  FATHOM_CUDA(kernels::cuda::MarkSeen(
      context_, {.ids = seen_ids,
                 .count = static_cast<int>(admit.ids.size()),
                 .prompt_tokens = std::max(slot.prompt_tokens - sent_before, 0),
                 .slot = id,
                 .vocab = parts_.model->vocab,
                 .clear = sent_before == 0,
                 .seen = arenas.Buffer<uint16_t>("seen")}));
  return absl::OkStatus();
}

void CudaEngine::Collect(const Epoch& epoch, StepChannel& channel, const StepObserver& observer) {
  bool writing = true;
  std::optional<int> before;  // Kept until the next step's end: its events are compared with.
  while (std::optional<Pending> pending = pending_.Pop()) {
    const StepBuffers& buffers = (*parts_.buffers)[static_cast<size_t>(pending->buffer)];
    FATHOM_CUDA(cudaEventSynchronize(buffers.end));
    StepStream stream = pending->stream;
    stream.collected_at_us = parts_.clock->Now();
    parts_.progress->word.fetch_add(1);
    StepResult result = ResultOf(*pending, buffers);
    stream.device_us = ElapsedUs(buffers.begin, buffers.end);
    if (before) {
      stream.device_idle_us =
          ElapsedUs((*parts_.buffers)[static_cast<size_t>(*before)].end, buffers.begin);
    }
    stream.ready_at_us = parts_.clock->Now();
    result.timings.compute_us = stream.device_us;
    result.timings.read_to_write_us = stream.ready_at_us - stream.read_at_us;
    writing = writing && !epoch.aborted() && channel.Write(result).ok();
    stream.write_us = parts_.clock->Now() - stream.ready_at_us;
    if (writing && observer) observer(pending->plan, result, stream);
    Left();
    if (before) FATHOM_CHECK(free_.TryPush(int{*before}));
    before = pending->buffer;
  }
  free_.Close();
}

StepResult CudaEngine::ResultOf(const Pending& pending, const StepBuffers& buffers) {
  const StepPlan& plan = pending.plan;
  StepResult result{plan.term, plan.epoch, plan.step, seat_.rank, {}, {}, 0};
  result.rows.reserve(pending.step.rows.size());
  for (const PlannedRow& planned : pending.step.rows) {
    ResultRow& row = result.rows.emplace_back(planned.row);
    if (row.fault == RowFault::kNone) RowOf(pending, planned, buffers, &row);
    if (row.fault == RowFault::kNone) continue;
    faulted_[static_cast<size_t>(planned.slot)].store(true);
    row.fault_detail = DetailOf(planned, buffers, row.fault);
  }
  return result;
}

std::string CudaEngine::DetailOf(const PlannedRow& planned, const StepBuffers& buffers,
                                 RowFault fault) const {
  if (fault != RowFault::kNonFiniteLogits) return {};
  if (!parts_.diagnose) {
    return parts_.non_finite_hint +
           "Start the workers with --diagnose-numerics to learn the layer and the op";
  }
  int32_t first = 0;
  for (int32_t i = 0; i < planned.row_count; ++i) {
    const int32_t code = buffers.diagnosis[planned.first_row + i];
    if (code != 0 && (first == 0 || code < first)) first = code;
  }
  return parts_.non_finite_hint + DescribeCheck(first);
}

void CudaEngine::RowOf(const Pending& pending, const PlannedRow& planned,
                       const StepBuffers& buffers, ResultRow* row) {
  const auto score_begin = static_cast<size_t>(planned.score_begin);
  const std::span<const SampleOut> scores(buffers.outputs + score_begin,
                                          static_cast<size_t>(planned.score_count));
  for (const SampleOut& out : scores) {
    if (row->fault == RowFault::kNone) row->fault = FaultOf(out.fault);
  }
  if (planned.sample >= 0 && row->fault == RowFault::kNone) {
    row->fault = FaultOf(buffers.outputs[planned.sample].fault);
  }
  if (row->fault != RowFault::kNone) return;
  if (!scores.empty()) {
    PromptLogprobs& prompt = row->prompt_logprobs.emplace();
    prompt.start = planned.score_start;
    const auto* asked =
        reinterpret_cast<const SampleRow*>(buffers.input + pending.step.layout.sample_rows);
    for (size_t i = 0; i < scores.size(); ++i) {
      prompt.logprobs.push_back(
          LogprobOf(scores[i], asked[score_begin + i].target, planned.score_top));
    }
  }
  if (planned.sample < 0) return;
  const SampleOut& out = buffers.outputs[planned.sample];
  row->ids.push_back(out.token);
  if (planned.logprobs >= 0) row->logprobs.push_back(LogprobOf(out, out.token, planned.logprobs));
}

}  // namespace fathom::worker
