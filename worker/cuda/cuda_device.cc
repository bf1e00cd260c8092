#include "worker/cuda/cuda_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "worker/cuda/cuda_check.h"
#include "worker/engine/sampling.h"

namespace fathom::worker {

using kernels::cuda::BlockPair;
using kernels::cuda::SampleOut;
using kernels::cuda::SampleRow;
using kernels::cuda::SamplerSlot;

namespace {

int32_t PartialSegments(const CudaRank& rank) {
  const int64_t bytes_each = WidestOf(rank.options.model).heads * 2 * int64_t{sizeof(float)};
  return static_cast<int32_t>(rank.arenas->Bytes("partial_ml") / bytes_each);
}

kernels::cuda::BlockOpsArgs BlockOps(const CudaRank& rank) {
  const RankModel& model = rank.options.model;
  const KvPlane& first = model.layers.front().attention.planes.front();
  const int64_t block_bytes = KvBytes({&first, 1}, kCudaElementBytes, kCudaBlockTokens);
  int32_t planes = 0;
  for (const RankLayer& layer : model.layers) {
    for (const KvPlane& plane : layer.attention.planes) {
      FATHOM_CHECK(KvBytes({&plane, 1}, kCudaElementBytes, kCudaBlockTokens) == block_bytes,
                   "layer {}: block ops take planes of one size", layer.index);
      ++planes;
    }
  }
  const int32_t host_blocks = rank.options.plan.limits.host_blocks;
  return {.planes = rank.arenas->Buffer<void>("kv"),
          .planes_count = planes,
          .pool_blocks = rank.options.plan.limits.pool_blocks,
          .block_bytes = block_bytes,
          .swap_space = rank.swap_space ? rank.swap_space->data() : nullptr,
          .swap_blocks = host_blocks > 0 ? host_blocks + 1 : 0};
}

// The most bytes that the admits of one plan copy to the device: the parameters of every slot, and
// the ids of a plan (kAdmitIdsMax), which only penalties need there. A stage that does not sample
// has at most the step of each admit.
int64_t AdmitBytes(const CudaRank& rank) {
  if (!rank.options.model.is_last_stage()) {
    return (int64_t{rank.options.plan.limits.slots} + 1) * 16;
  }
  constexpr int64_t kPadding = 16 * 5;
  constexpr int64_t kOfSlot =
      int64_t{sizeof(SamplerSlot)} + int64_t{sizeof(kernels::ThinkingSlot)} + kPadding;
  return (int64_t{rank.options.plan.limits.slots} + 1) * kOfSlot + rank.arenas->Bytes("bias_ids") +
         rank.arenas->Bytes("bias_values") + rank.arenas->Bytes("end_ids") +
         int64_t{kAdmitIdsMax} * int64_t{sizeof(int32_t)};
}

RowFault FaultOf(int32_t bits) {
  if (bits & kernels::cuda::kFaultTokenRange) return RowFault::kTokenOutOfRange;
  if (bits & kernels::cuda::kFaultBlockRange) return RowFault::kBlockOutOfRange;
  return bits != 0 ? RowFault::kNonFiniteLogits : RowFault::kNone;
}

int64_t ElapsedUs(cudaEvent_t from, cudaEvent_t to) {
  float ms = 0;
  FATHOM_CUDA(cudaEventElapsedTime(&ms, from, to));
  return static_cast<int64_t>(ms * 1000.0f);
}

// The likely cause of a non-finite value for this model and type, and the way out; empty if there
// is none to name.
std::string NonFiniteHint(const CudaBackendOptions& options) {
  const StoredType stored = options.checkpoint->stored_type();
  if (options.dtype != kernels::DType::kF16 || stored == StoredType::kF16) return {};
  return fmt::format(
      "The checkpoint is {} and this worker computes in half, whose largest value is 65504: an "
      "overflow is likely; use --dtype bfloat16. ",
      StoredTypeName(stored));
}

}  // namespace

CudaRank::CudaRank(const CudaBackendOptions& wanted)
    : options(wanted),
      comm(wanted.model.place.tp_rank, wanted.model.place.tp, wanted.clock, wanted.progress,
           wanted.model.place.stage, wanted.model.place.stages),
      graphs(wanted.plan.Bytes("graphs"), wanted.graphs_grew) {
  FATHOM_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
}

CudaRank::~CudaRank() { cudaStreamDestroy(stream); }

CudaDevice::CudaDevice(std::unique_ptr<CudaRank> rank)
    : rank_(std::move(rank)),
      admit_bytes_(AdmitBytes(*rank_)),
      builder_(rank_->options.plan.limits, rank_->options.plan.logits_rows, PartialSegments(*rank_),
               rank_->options.use_graphs && !rank_->options.diagnose),
      block_ops_(BlockOps(*rank_)),
      context_{.stream = rank_->stream},
      // One more than are in flight: StepBuffers says why.
      buffers_(static_cast<size_t>(StepsAhead(place().stages)) + 2) {
  for (StepBuffers& buffers : buffers_) AllocatePinned(&buffers);
  if (place().stages == 1 || place().stage != 0) return;
  const DeviceArenas& arenas = *rank_->arenas;
  const EngineLimits& limits = rank_->options.plan.limits;
  inbox_ = std::make_unique<SampleInbox>(SampleInbox::Parts{
      .stages = place().stages,
      .places = arenas.Buffer<kernels::cuda::SlotSample>("slot_samples"),
      .bytes = arenas.Bytes("slot_samples"),
      .place_bytes = StageSizesOf(rank_->options.model, limits).samples.mail_bytes,
      .slot_since = arenas.Buffer<uint32_t>("slot_since"),
      .slot_tokens = arenas.Buffer<int32_t>("slot_tokens"),
      .slot_faults = arenas.Buffer<int32_t>("slot_faults"),
      .slots = limits.slots + 1});
}

CudaDevice::~CudaDevice() {
  for (StepBuffers& buffers : buffers_) {
    for (void* pinned : {static_cast<void*>(buffers.input), static_cast<void*>(buffers.admits),
                         static_cast<void*>(buffers.masks), static_cast<void*>(buffers.outputs),
                         static_cast<void*>(buffers.diagnosis)}) {
      cudaFreeHost(pinned);
    }
    cudaEventDestroy(buffers.begin);
    cudaEventDestroy(buffers.end);
    cudaEventDestroy(buffers.swap_begin);
    cudaEventDestroy(buffers.swap_end);
  }
}

void CudaDevice::AllocatePinned(StepBuffers* buffers) const {
  const auto allocate = [](auto** pinned, int64_t bytes) {
    FATHOM_CUDA(cudaMallocHost(reinterpret_cast<void**>(pinned), static_cast<size_t>(bytes)));
  };
  allocate(&buffers->input, rank_->arenas->Bytes("step_inputs"));
  allocate(&buffers->admits, admit_bytes_);
  allocate(&buffers->outputs, rank_->arenas->Bytes("step_outputs"));
  if (rank_->options.model.is_last_stage() && rank_->options.grammars != nullptr) {
    allocate(&buffers->masks, rank_->arenas->Bytes("step_masks"));
  }
  if (rank_->options.diagnose) {
    allocate(&buffers->diagnosis,
             rank_->options.plan.limits.step_tokens * int64_t{sizeof(int32_t)});
  }
  FATHOM_CUDA(cudaEventCreate(&buffers->begin));
  FATHOM_CUDA(cudaEventCreate(&buffers->end));
  FATHOM_CUDA(cudaEventCreate(&buffers->swap_begin));
  FATHOM_CUDA(cudaEventCreate(&buffers->swap_end));
}

absl::Status CudaDevice::Join(GroupLink& group) {
  const CudaBackendOptions& options = rank_->options;
  // Each rank cuts a step into the same passes of the LM head, and has room for the same rows.
  const EngineLimits& own = options.plan.limits;
  const EngineLimits& agreed = group.seat().limits;
  if (agreed.slots != own.slots || agreed.step_tokens != own.step_tokens) {
    return FailedPrecondition(
        "the memory of this rank's GPU allows {} sequences and {} tokens a step, that of another "
        "rank {} and {}: start all workers with --max-num-seqs {} --max-num-batched-tokens {}",
        own.slots, own.step_tokens, agreed.slots, agreed.step_tokens, agreed.slots,
        agreed.step_tokens);
  }
  FATHOM_RETURN_IF_ERROR(CheckAlike(group));
  FATHOM_ASSIGN_OR_RETURN(comms_, ConnectRanks(group, {.model = &options.model,
                                                       .dtype = options.dtype,
                                                       .limits = own,
                                                       .clock = options.clock}));
  group.OnAbort([comms = &comms_] { comms->Abort(); });
  rank_->decoder->SetComms({comms_.layers.get(), comms_.rows.get(), comms_.samples.get()});
  if (inbox_ != nullptr) inbox_->Begin(comms_.samples.get());
  options.progress->SetProbe(this);
  return absl::OkStatus();
}

// Ranks that pad their steps differently would send and sum different numbers of rows.
absl::Status CudaDevice::CheckAlike(GroupLink& group) const {
  const CudaBackendOptions& options = rank_->options;
  const std::string own = options.use_graphs && !options.diagnose ? "graphs" : "no graphs";
  FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> all, group.Exchange(own));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] == own) continue;
    return FailedPrecondition(
        "rank {} runs with {}, this rank with {}: start all workers of a group with the same "
        "--enforce-eager and --diagnose-numerics",
        rank, all[rank].substr(0, 16), own);
  }
  return absl::OkStatus();
}

void CudaDevice::Leave() {
  if (!comms_.connected()) return;
  rank_->options.progress->SetProbe(nullptr);
  comms_.Abort();
  FATHOM_CUDA(cudaStreamSynchronize(rank_->stream));
  if (inbox_ != nullptr) inbox_->End();
  rank_->graphs.Clear();  // What they do between ranks ends with the comms.
  rank_->decoder->SetComms({});
  comms_ = {};
  on_device_.Clear();
  collectives_.clear();
}

absl::Status CudaDevice::Submit(const StepBatch& batch) {
  SetCudaStep(batch.step.value);
  StepBuffers& buffers = BuffersOf(submitted_);
  CopyBlocks(batch.copies, &buffers);
  ZeroBlocks(batch.zeroed);
  int64_t used = 0;
  for (const AdmitWork& admit : batch.admits) {
    FATHOM_RETURN_IF_ERROR(Admit(batch.step, admit, buffers, &used));
  }
  builder_.Build(batch, buffers.input, &buffers.step);
  const CommCounts before = EnqueuedCollectives();
  FATHOM_RETURN_IF_ERROR(Compute(batch, buffers));
  if (comms_.connected()) NoteCollectives(batch.step, buffers.step, before);
  ++submitted_;
  return absl::OkStatus();
}

CommCounts CudaDevice::EnqueuedCollectives() const {
  return comms_.layers == nullptr ? CommCounts() : comms_.layers->Enqueued();
}

DeviceWork CudaDevice::Read() const {
  const DeviceComm& comm = comms_.layers != nullptr ? *comms_.layers : *comms_.rows;
  return on_device_.WorkOf(comm.Began(), rank_->options.model.layers.front().index);
}

void CudaDevice::NoteCollectives(StepId id, const BuiltStep& step, const CommCounts& before) {
  CommCounts counts = EnqueuedCollectives() - before;
  if (step.graphable && counts.meetings > 0) {
    collectives_[step.shape] = counts;
  } else if (const auto known = collectives_.find(step.shape);
             step.graphable && known != collectives_.end()) {
    counts = known->second;
  }
  on_device_.Queue(id, counts);
}

// The masks in the order in which StepBuilder numbers them.
void CudaDevice::CopyMasks(const StepBatch& batch, const StepBuffers& buffers) {
  const size_t words = (static_cast<size_t>(rank_->options.model.vocab) + 31) / 32;
  size_t used = 0;
  for (const ChunkWork* chunk : batch.chunks) {
    if (!chunk->guided || !chunk->sample) continue;
    uint32_t* const mask = buffers.masks + used * words;
    const std::span<const uint32_t> filled = batch.masks->MaskFor(*chunk);
    if (filled.empty()) {
      std::fill_n(mask, words, ~0u);
    } else {
      std::memcpy(mask, filled.data(), words * sizeof(uint32_t));
    }
    ++used;
  }
  FATHOM_CUDA(cudaMemcpyAsync(rank_->arenas->Buffer<uint32_t>("step_masks"), buffers.masks,
                              used * words * sizeof(uint32_t), cudaMemcpyHostToDevice,
                              rank_->stream));
}

absl::Status CudaDevice::Compute(const StepBatch& batch, const StepBuffers& buffers) {
  const BuiltStep& step = buffers.step;
  const cudaStream_t stream = rank_->stream;
  CudaDecoder& decoder = *rank_->decoder;
  FATHOM_CUDA(cudaMemcpyAsync(rank_->arenas->Buffer<std::byte>("step_inputs"), buffers.input,
                              static_cast<size_t>(step.layout.bytes), cudaMemcpyHostToDevice,
                              stream));
  if (batch.masks != nullptr) CopyMasks(batch, buffers);
  FATHOM_CUDA(cudaEventRecord(buffers.begin, stream));
  if (inbox_ != nullptr) FATHOM_RETURN_IF_ERROR(inbox_->Take(batch, context_));
  if (step.graphable) {
    FATHOM_RETURN_IF_ERROR(rank_->graphs.Run(
        stream, step.shape, [&](cudaStream_t to) { return decoder.Enqueue(to, step.shape, {}); }));
  } else {
    FATHOM_RETURN_IF_ERROR(decoder.Enqueue(stream, step.shape, step.chunks));
  }
  if (inbox_ != nullptr) {
    FATHOM_RETURN_IF_ERROR(inbox_->Expect(batch.step, step.shape.samples));
  }
  FATHOM_CUDA(cudaMemcpyAsync(buffers.outputs, rank_->arenas->Buffer<SampleOut>("step_outputs"),
                              static_cast<size_t>(step.shape.samples) * sizeof(SampleOut),
                              cudaMemcpyDeviceToHost, stream));
  if (rank_->options.diagnose && step.shape.rows > 0) {
    FATHOM_CUDA(cudaMemcpyAsync(buffers.diagnosis, decoder.diagnosis(),
                                static_cast<size_t>(step.shape.rows) * sizeof(int32_t),
                                cudaMemcpyDeviceToHost, stream));
  }
  FATHOM_CUDA(cudaEventRecord(buffers.end, stream));
  return absl::OkStatus();
}

// The copies of one launch run in parallel; a launch begins when the one before has ended. Every
// copy is on the stream of the steps: it reads what earlier steps wrote, and later steps read what
// it wrote.
void CudaDevice::CopyBlocks(std::span<const BlockCopy> copies, StepBuffers* buffers) {
  buffers->swaps = std::ranges::any_of(
      copies, [](const BlockCopy& copy) { return copy.operation != CopyOperation::kInPool; });
  if (buffers->swaps) FATHOM_CUDA(cudaEventRecord(buffers->swap_begin, rank_->stream));
  std::vector<BlockPair> pairs;
  CopyOperation operation = CopyOperation::kInPool;
  const auto flush = [&] {
    if (pairs.empty()) return;
    const auto launch = operation == CopyOperation::kSwapOut  ? &kernels::cuda::SwapOutBlocks
                        : operation == CopyOperation::kSwapIn ? &kernels::cuda::SwapInBlocks
                                                              : &kernels::cuda::CopyBlocks;
    FATHOM_CUDA(launch(context_, block_ops_, pairs.data(), static_cast<int>(pairs.size())));
    pairs.clear();
  };
  for (const BlockCopy& copy : copies) {
    // The sources and targets of a swap are of different memories.
    const bool in_pool = copy.operation == CopyOperation::kInPool;
    const bool touched = std::any_of(pairs.begin(), pairs.end(), [&](const BlockPair& pair) {
      return pair.to == copy.to.value ||
             (in_pool && (pair.to == copy.from.value || pair.from == copy.to.value));
    });
    if (copy.operation != operation || touched ||
        std::ssize(pairs) == kernels::cuda::kBlockOpsMax) {
      flush();
    }
    operation = copy.operation;
    pairs.push_back({copy.from.value, copy.to.value});
  }
  flush();
  if (buffers->swaps) FATHOM_CUDA(cudaEventRecord(buffers->swap_end, rank_->stream));
}

void CudaDevice::ZeroBlocks(std::span<const BlockId> blocks) {
  std::array<int32_t, kernels::cuda::kBlockOpsMax> ids;
  while (!blocks.empty()) {
    const size_t count = std::min(ids.size(), blocks.size());
    for (size_t i = 0; i < count; ++i) ids[i] = blocks[i].value;
    FATHOM_CUDA(
        kernels::cuda::ZeroBlocks(context_, block_ops_, ids.data(), static_cast<int>(count)));
    blocks = blocks.subspan(count);
  }
}

absl::Status CudaDevice::Stage(const void* data, int64_t bytes, void* device,
                               const StepBuffers& buffers, int64_t* used) {
  if (bytes == 0) return absl::OkStatus();
  if (*used + bytes > admit_bytes_) {
    return Invalid("the admits of one plan carry more than {} bytes", admit_bytes_);
  }
  std::memcpy(buffers.admits + *used, data, static_cast<size_t>(bytes));
  FATHOM_CUDA(cudaMemcpyAsync(device, buffers.admits + *used, static_cast<size_t>(bytes),
                              cudaMemcpyHostToDevice, rank_->stream));
  *used += (bytes + 15) / 16 * 16;
  return absl::OkStatus();
}

absl::Status CudaDevice::Admit(StepId step, const AdmitWork& admit, const StepBuffers& buffers,
                               int64_t* used) {
  const Slot& slot = *admit.slot;
  const bool samples = rank_->options.model.is_last_stage();
  if (admit.start == 0) {
    const int32_t id = admit.id.value;
    FATHOM_CUDA(cudaMemsetAsync(rank_->arenas->Buffer<int32_t>("slot_faults") + id, 0,
                                sizeof(int32_t), rank_->stream));
    if (inbox_ != nullptr) {
      const auto since = static_cast<uint32_t>(step.value);
      FATHOM_RETURN_IF_ERROR(Stage(&since, sizeof(since),
                                   rank_->arenas->Buffer<uint32_t>("slot_since") + id, buffers,
                                   used));
    }
    if (samples) FATHOM_RETURN_IF_ERROR(BeginSlot(admit, buffers, used));
  }
  if (samples) {  // With the ids of every admit, because the state follows from them.
    FATHOM_RETURN_IF_ERROR(
        Stage(&slot.thinking, sizeof(slot.thinking),
              rank_->arenas->Buffer<kernels::ThinkingSlot>("slot_thinking") + admit.id.value,
              buffers, used));
  }
  if (!samples || !slot.penalized() || slot.fault != RowFault::kNone) return absl::OkStatus();
  auto* const seen_ids = rank_->arenas->Buffer<int32_t>("seen_ids");
  FATHOM_RETURN_IF_ERROR(Stage(admit.ids.data(),
                               static_cast<int64_t>(admit.ids.size() * sizeof(int32_t)), seen_ids,
                               buffers, used));
  FATHOM_CUDA(kernels::cuda::MarkSeen(
      context_, {.ids = seen_ids,
                 .count = static_cast<int>(admit.ids.size()),
                 .prompt_tokens = std::max(slot.prompt_tokens - admit.start, 0),
                 .slot = admit.id.value,
                 .vocab = rank_->options.model.vocab,
                 .clear = admit.start == 0,
                 .seen = rank_->arenas->Buffer<uint16_t>("seen")}));
  return absl::OkStatus();
}

absl::Status CudaDevice::BeginSlot(const AdmitWork& admit, const StepBuffers& buffers,
                                   int64_t* used) {
  const DeviceArenas& arenas = *rank_->arenas;
  const Slot& slot = *admit.slot;
  const int32_t id = admit.id.value;
  const auto& biases = slot.request.sampling.logit_bias;
  const auto slots = int64_t{rank_->options.plan.limits.slots} + 1;
  const auto bias_max =
      static_cast<int32_t>(arenas.Bytes("bias_ids") / slots / int64_t{sizeof(int32_t)});
  const auto ends_max =
      static_cast<int32_t>(arenas.Bytes("end_ids") / slots / int64_t{sizeof(int32_t)});
  FATHOM_CHECK(std::ssize(biases) <= bias_max && std::ssize(slot.end_ids) <= ends_max,
               "slot {} has {} biases and {} end tokens", id, biases.size(), slot.end_ids.size());
  SamplerSlot params;
  SetSampling(slot, &params);
  params.min_tokens = slot.request.stop.min_tokens;
  params.bias_begin = id * bias_max;
  params.bias_count = static_cast<int32_t>(biases.size());
  params.end_begin = id * ends_max;
  params.end_count = static_cast<uint16_t>(slot.end_ids.size());
  params.penalized = slot.penalized() ? 1 : 0;
  FATHOM_RETURN_IF_ERROR(Stage(&params, sizeof(params),
                               arenas.Buffer<SamplerSlot>("slot_params") + id, buffers, used));
  std::vector<int32_t> ids;
  std::vector<float> values;
  for (const auto& [token, bias] : biases) {
    ids.push_back(token);
    values.push_back(bias);
  }
  const auto bytes = static_cast<int64_t>(ids.size() * sizeof(int32_t));
  FATHOM_RETURN_IF_ERROR(Stage(
      ids.data(), bytes, arenas.Buffer<int32_t>("bias_ids") + params.bias_begin, buffers, used));
  FATHOM_RETURN_IF_ERROR(Stage(values.data(), bytes,
                               arenas.Buffer<float>("bias_values") + params.bias_begin, buffers,
                               used));
  return Stage(slot.end_ids.data(), static_cast<int64_t>(slot.end_ids.size() * sizeof(int32_t)),
               arenas.Buffer<int32_t>("end_ids") + params.end_begin, buffers, used);
}

StepOutputs CudaDevice::Collect() {
  const StepBuffers& buffers = BuffersOf(collected_);
  FATHOM_CUDA(cudaEventSynchronize(buffers.end));
  StepOutputs outputs;
  outputs.collected_at_us = rank_->options.clock->Now();
  outputs.compute_us = outputs.device_us = ElapsedUs(buffers.begin, buffers.end);
  if (buffers.swaps) outputs.swap_us = ElapsedUs(buffers.swap_begin, buffers.swap_end);
  if (measured_) {
    outputs.device_idle_us =
        ElapsedUs(BuffersOf(collected_ - 1).end, buffers.begin) - outputs.swap_us;
  }
  const int64_t waited_us = comms_.WaitedUs();
  outputs.collective_us = waited_us - (measured_ ? waited_us_ : 0);
  waited_us_ = waited_us;
  outputs.graph = buffers.step.graphable;
  const auto* asked =
      reinterpret_cast<const SampleRow*>(buffers.input + buffers.step.layout.sample_rows);
  row_outputs_.clear();
  for (int32_t i = 0; i < buffers.step.shape.samples; ++i) {
    if (asked[i].logits_row < 0) continue;  // A row of a graph that samples nothing.
    const SampleOut& out = buffers.outputs[i];
    const auto top = static_cast<size_t>(std::max(asked[i].logprobs, 0));
    row_outputs_.push_back({.token = out.token,
                            .fault = FaultOf(out.fault),
                            .logprob = out.logprob,
                            .top_ids = std::span(out.top_ids).first(top),
                            .top_logprobs = std::span(out.top_logprobs).first(top)});
  }
  outputs.rows = row_outputs_;
  measured_ = true;
  ++collected_;
  return outputs;
}

std::string CudaDevice::NonFiniteDetail(int32_t first, int32_t count) const {
  const CudaBackendOptions& options = rank_->options;
  if (!options.diagnose) {
    return NonFiniteHint(options) +
           "Start the workers with --diagnose-numerics to learn the layer and the op";
  }
  const int32_t* codes = buffers_[(collected_ - 1) % buffers_.size()].diagnosis + first;
  int32_t earliest = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (codes[i] != 0 && (earliest == 0 || codes[i] < earliest)) earliest = codes[i];
  }
  return NonFiniteHint(options) + DescribeCheck(earliest);
}

void CudaDevice::Drain() {
  FATHOM_CUDA(cudaStreamSynchronize(rank_->stream));
  FATHOM_CHECK(collected_ == submitted_);
  measured_ = false;
  LogInfo("{} graphs of {} bytes", rank_->graphs.graphs(), rank_->graphs.bytes());
}

}  // namespace fathom::worker
