// Stages of a pipeline on one GPU, as devices of one process: the answering rank gives the results
// of one device, to the last bit, one step after the other and with several in flight; faults of
// every stage; and an abort that ends the waits of a stage.
//
// Kernels of two ranks wait for each other, so all code is loaded before any of them runs, and the
// process asks for a hardware queue for each stream (kOneProcess). The capture of a graph may wait
// for the whole device, so graphs are used only by ranks that take turns.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"
#include "worker/cuda/cuda_backend.h"
#include "worker/engine/engine.h"

namespace fathom::worker {
namespace {

using testing::ModelFiles;
using testing::TempFolder;
using Rows = std::vector<std::vector<ResultRow>>;

// Before the first call of CUDA, which reads both.
const bool kOneProcess = setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0 &&
                         setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1) == 0;
constexpr int32_t kSlots = 8, kStepTokens = 192, kContext = 448, kBlocksEach = 7, kVocab = 512;
constexpr TokenId kBadToken = 7;

// compute-sanitizer may run one kernel at a time.
bool Sanitized() { return std::getenv("FATHOM_SANITIZED") != nullptr; }

uint64_t Seed() {
  const char* text = std::getenv("FATHOM_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 20261201;
  std::printf("FATHOM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// --- Models ---

ModelFiles FourLayers() {
  std::string config = testing::WithKey(testing::TinyConfig(), "num_hidden_layers", "4");
  ModelFiles files =
      testing::RandomModel(testing::WithKey(config, "vocab_size", std::to_string(kVocab)), 11);
  testing::Retype(files, StoredType::kBf16);
  return files;
}

// As tests/gpu/faults.py does: a neuron of layer `layer` is active for kBadToken alone, and then
// adds more than half can represent.
void Poison(ModelFiles* files, int32_t layer) {
  const auto change = [&](const std::string& name, auto&& of) {
    testing::StoredTensor& tensor = files->Tensor(name);
    std::vector<float> values = testing::ToFloats(tensor.dtype, tensor.bytes);
    of(values, static_cast<size_t>(tensor.shape.back()));
    tensor.bytes = testing::FromFloats(StoredType::kBf16, values);
  };
  const std::string mlp = fmt::format("model.layers.{}.mlp.", layer);
  change("model.embed_tokens.weight", [](auto& v, size_t columns) {
    for (size_t i = 0; i < v.size(); i += columns) {
      v[i] = i / columns == size_t{kBadToken} ? 64.0f : -64.0f;
    }
  });
  change(fmt::format("model.layers.{}.post_attention_layernorm.weight", layer),
         [](auto& v, size_t) { v[0] = 1.0f; });
  for (const auto& [name, value] :
       {std::pair{"gate_proj.weight", 20.0f}, {"up_proj.weight", 1.0f}}) {
    change(mlp + name, [value = value](auto& v, size_t columns) {
      std::fill_n(v.begin(), columns, 0.0f);
      v[0] = value;
    });
  }
  change(mlp + "down_proj.weight", [](auto& v, size_t columns) {
    for (size_t i = 0; i < v.size(); i += columns) v[i] = 60000.0f;
  });
}

struct OpenModel {
  explicit OpenModel(const ModelFiles& files) {
    testing::WriteModel(folder.path(), files);
    config = ReadModelConfig(folder.path()).value();
    checkpoint = OpenCheckpoint(folder.path(), config).value();
  }
  TempFolder folder;
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
};

// --- Ranks ---

// Carries what the ranks of an epoch tell each other.
class Meeting {
 public:
  explicit Meeting(int ranks) : ranks_(static_cast<size_t>(ranks)) {}
  std::vector<std::string> Exchange(int rank, size_t round, std::string mine) {
    std::unique_lock lock(mutex_);
    if (rounds_.size() <= round) rounds_.resize(round + 1);
    rounds_[round].resize(ranks_);
    rounds_[round][static_cast<size_t>(rank)] = std::move(mine);
    ++told_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return told_ >= (round + 1) * ranks_; });
    return rounds_[round];
  }

 private:
  const size_t ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<std::string>> rounds_;
  size_t told_ = 0;
};

struct Rank final : GroupLink {
  const GroupSeat& seat() const override { return own_seat; }
  absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) override {
    return meeting->Exchange(own_seat.rank, round++, std::move(mine));
  }
  void OnAbort(std::function<void()> callback) override { abort = std::move(callback); }

  GroupSeat own_seat;
  Meeting* meeting = nullptr;
  size_t round = 0;
  std::function<void()> abort;
  Progress progress;
  std::unique_ptr<Device> device;
};

class Group {
 public:
  Group(const OpenModel& model, const GroupShape& shape, kernels::DType dtype, bool graphs)
      : shape_(shape) {
    const ModelSpec spec = SpecOf(model.config);
    CudaMemoryRequest request;
    request.capacity_bytes = int64_t{8} << 30;
    request.kv_cache_bytes = int64_t{64} << 20;
    request.dtype = dtype;
    request.tp = shape.tp;
    request.stages = shape.pp;
    request.context_tokens = kContext;
    request.slots = kSlots;
    request.step_tokens = kStepTokens;
    const std::vector<CudaMemoryPlan> plans = PlanCudaStages(spec, request).value();
    for (int32_t number = 0; number < shape.ranks(); ++number) {
      const int32_t stage = shape.StageOf(number);
      auto rank = std::make_unique<Rank>();
      CudaBackendOptions options;
      options.model = RankOf(spec, {shape.tp, shape.TpRankOf(number), stage, shape.pp});
      options.checkpoint = model.checkpoint.get();
      options.clock = &clock_;
      options.progress = &rank->progress;
      options.plan = plans[static_cast<size_t>(stage)];
      options.dtype = dtype;
      options.use_graphs = graphs;
      rank->device = MakeCudaDevice(options).value();
      rank->own_seat = {.term = {3}, .epoch = {5}, .tp = shape.tp, .pp = shape.pp, .rank = number};
      rank->own_seat.limits = options.plan.limits;
      rank->own_seat.peers.resize(static_cast<size_t>(shape.ranks()));
      ranks_.push_back(std::move(rank));
    }
  }

  // An epoch with a thread for each rank, which runs `script`.
  void Epoch(const std::function<void(Rank&)>& script) {
    Meeting meeting(shape_.ranks());
    std::vector<std::thread> threads;
    for (const auto& rank : ranks_) {
      rank->meeting = &meeting;
      rank->round = 0;
      threads.emplace_back([&, rank = rank.get()] {
        if (rank->device->connects_itself()) {
          const absl::Status joined = rank->device->Join(*rank);
          ASSERT_TRUE(joined.ok()) << ToString(joined);
        }
        script(*rank);
        rank->device->Leave();
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // The ranks do each step one after the other. Returns the rows of each step.
  Rows TakeTurns(const std::vector<StepPlan>& plans) {
    Rows rows;
    std::mutex mutex;
    std::condition_variable changed;
    size_t turn = 0;
    Epoch([&](Rank& rank) {
      Engine engine(rank.device.get(), rank.own_seat);
      const auto number = static_cast<size_t>(rank.own_seat.rank);
      SubmittedStep step;
      StepStream stream;
      for (size_t i = 0; i < plans.size(); ++i) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return turn == i * ranks_.size() + number; });
        const absl::Status submitted = engine.Submit(plans[i], &step);
        EXPECT_TRUE(submitted.ok()) << "rank " << number << ": " << ToString(submitted);
        StepResult result = engine.Collect(step, &stream);
        if (rank.own_seat.rank == shape_.answering_rank()) rows.push_back(std::move(result.rows));
        ++turn;
        changed.notify_all();
      }
      rank.device->Drain();
      // Leave would end what others still do.
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return turn == plans.size() * ranks_.size(); });
    });
    return rows;
  }

  // As many steps are in flight as a scheduler has.
  Rows RunAhead(const std::vector<StepPlan>& plans) {
    Rows rows;
    std::mutex mutex;
    std::condition_variable changed;
    size_t answered = 0, ended = 0;
    const size_t ahead = static_cast<size_t>(shape_.pp) + 1;
    Epoch([&](Rank& rank) {
      Engine engine(rank.device.get(), rank.own_seat);
      const bool answers = rank.own_seat.rank == shape_.answering_rank();
      std::vector<SubmittedStep> steps(ahead);
      StepStream stream;
      size_t collected = 0;
      const auto collect = [&] {
        StepResult result = engine.Collect(steps[collected++ % ahead], &stream);
        if (!answers) return;
        rows.push_back(std::move(result.rows));
        const std::lock_guard lock(mutex);
        answered = collected;
        changed.notify_all();
      };
      for (size_t i = 0; i < plans.size(); ++i) {
        while (i >= collected + ahead) collect();
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return i < answered + ahead; });
        lock.unlock();
        const absl::Status submitted = engine.Submit(plans[i], &steps[i % ahead]);
        EXPECT_TRUE(submitted.ok()) << ToString(submitted);
      }
      while (collected < plans.size()) collect();
      rank.device->Drain();
      std::unique_lock lock(mutex);
      ++ended;
      changed.notify_all();
      changed.wait(lock, [&] { return ended == ranks_.size(); });
    });
    return rows;
  }

  Rank& at(int32_t rank) { return *ranks_[static_cast<size_t>(rank)]; }

 private:
  const GroupShape shape_;
  RealClock clock_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

// --- Plans ---

// Plays a scheduler whose sequences are in `lanes` lanes: prompts in chunks, decode rows fed by the
// last step of the lane, and slots that are used again at once.
class Planner {
 public:
  Planner(uint64_t seed, int32_t lanes) : rng_(seed), lanes_(lanes) {}

  std::vector<StepPlan> Plans(int32_t steps) {
    std::vector<StepPlan> plans;
    for (int32_t i = 0; i < steps; ++i) plans.push_back(Next(static_cast<uint64_t>(i)));
    return plans;
  }

 private:
  struct Seated {
    bool taken = false;
    int32_t prompt = 0, computed = 0, left = 0;
    std::optional<StepId> sampled_by;
  };

  int32_t Below(int32_t n) { return static_cast<int32_t>(rng_() % static_cast<uint64_t>(n)); }

  void Seat(int32_t slot, StepPlan* plan) {
    Seated& seated = seated_[static_cast<size_t>(slot)];
    seated = {true, 1 + Below(200), 0, 1 + Below(20), {}};
    Admit admit{.slot = {slot}, .seed = rng_(), .prompt_tokens = seated.prompt};
    SamplingParams& s = admit.request.sampling;
    s.temperature = 0.8f * static_cast<float>(Below(2));
    if (Below(2) == 0) s.repetition_penalty = 1.3f;
    if (Below(2) == 0) s.frequency_penalty = 0.25f;
    if (Below(2) == 0) admit.request.output.logprobs = 3;
    if (Below(3) == 0) admit.request.output.prompt_logprobs = 1;
    if (Below(2) == 0) s.logit_bias = {{9, 3.0f}};
    for (int32_t i = 0; i < seated.prompt; ++i) {
      const TokenId id = Below(kVocab);
      admit.ids.push_back(id == kBadToken ? id + 1 : id);
    }
    plan->admits.push_back(std::move(admit));
    Extend extend{{slot}, {}};
    for (int32_t i = 0; i < kBlocksEach; ++i) {
      extend.block_ids.push_back({1 + (slot - 1) * kBlocksEach + i});
    }
    plan->extends.push_back(std::move(extend));
  }

  StepPlan Next(uint64_t step) {
    StepPlan plan;
    plan.term = {3};
    plan.epoch = {5};
    plan.step = {step};
    int32_t budget = kStepTokens;
    for (int32_t slot = 1; slot <= kSlots; ++slot) {
      if (static_cast<uint64_t>(slot) % static_cast<uint64_t>(lanes_) !=
          step % static_cast<uint64_t>(lanes_)) {
        continue;
      }
      Seated& seated = seated_[static_cast<size_t>(slot)];
      if (seated.taken && seated.left == 0) {
        plan.releases.push_back({slot});
        seated.taken = false;
      }
      if (!seated.taken && Below(2) == 0) Seat(slot, &plan);
      if (!seated.taken || budget == 0 || Below(6) == 0) continue;
      Chunk chunk{{slot}, 0, false};
      const int32_t open = seated.prompt - seated.computed;
      const int32_t count = seated.sampled_by ? 1 : std::min(budget, 1 + Below(open));
      if (seated.sampled_by) {
        chunk.work = DecodeRow{*seated.sampled_by};
        chunk.sample = true;
      } else {
        chunk.work = count;
        chunk.sample = count == open;
      }
      if (chunk.sample) {
        seated.sampled_by = StepId{step};
        --seated.left;
      }
      seated.computed += count;
      budget -= count;
      plan.chunks.push_back(chunk);
    }
    return plan;
  }

  std::mt19937_64 rng_;
  const int32_t lanes_;
  std::vector<Seated> seated_ = std::vector<Seated>(kSlots + 1);
};

// Equal rows, also in the bits of their log-probabilities.
void ExpectSame(const Rows& got, const Rows& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(got[i] == want[i]) << what << ": step " << i << " of " << got.size();
  }
}

constexpr kernels::DType kBf16 = kernels::DType::kBf16;

TEST(StagesOnAGpu, HaveTheBitsOfOneDevice) {
  const uint64_t seed = Seed();
  const OpenModel model(FourLayers());
  const int32_t steps = Sanitized() ? 12 : 150;
  for (const int32_t lanes : {1, 2}) {
    const std::vector<StepPlan> plans =
        Planner(seed + static_cast<uint64_t>(lanes), lanes).Plans(steps);
    const Rows want = Group(model, {1, 1}, kBf16, false).TakeTurns(plans);
    for (const int32_t pp : {2, 3, 4}) {
      for (const bool graphs : {false, true}) {
        Group group(model, {1, pp}, kBf16, graphs);
        const std::string what = fmt::format("{} lanes, {} stages, graphs {}", lanes, pp, graphs);
        ExpectSame(group.TakeTurns(plans), want, what);
        ExpectSame(group.TakeTurns(plans), want, what + ", the next epoch");
      }
    }
  }
}

TEST(StagesOnAGpu, HaveThemWithSeveralStepsInFlight) {
  if (Sanitized()) GTEST_SKIP() << "a launch may wait for its end";
  const uint64_t seed = Seed();
  const OpenModel model(FourLayers());
  for (const int32_t pp : {2, 3}) {
    for (const int32_t lanes : {1, pp}) {
      const std::vector<StepPlan> plans = Planner(seed + 10, lanes).Plans(200);
      const Rows want = Group(model, {1, 1}, kBf16, false).TakeTurns(plans);
      Group group(model, {1, pp}, kBf16, false);
      ExpectSame(group.RunAhead(plans), want, fmt::format("{} lanes, {} stages", lanes, pp));
      ExpectSame(group.RunAhead(plans), want, "the next epoch");
    }
  }
}

StepPlan EmptyPlan(uint64_t step) {
  StepPlan plan;
  plan.term = {3};
  plan.epoch = {5};
  plan.step = {step};
  return plan;
}

// A short prompt, whose sequence gets a block.
void SeatPrompt(StepPlan* plan, int32_t slot, std::vector<TokenId> ids) {
  Admit admit{.slot = {slot}, .seed = 3, .prompt_tokens = static_cast<int32_t>(ids.size())};
  admit.ids = std::move(ids);
  plan->chunks.push_back({{slot}, admit.prompt_tokens, true});
  plan->admits.push_back(std::move(admit));
  plan->extends.push_back({{slot}, {{slot}}});
}

// A sequence whose values overflow in a layer fails as on one device; the others do not, nor does
// the sequence that gets its slot and its block while samples of the old one are on their way. The
// row that overflows is read by the next layer, in its stage or in the next one; after the last
// layer no row reads another one, so there the row itself must be sampled.
TEST(StagesOnAGpu, AFaultInAnyStageHarmsItsSequenceOnly) {
  const std::vector<TokenId> inside = {4, kBadToken, 5}, at_end = {4, 5, kBadToken};
  for (const int32_t layer : {0, 1, 2, 3}) {
    ModelFiles files = FourLayers();
    Poison(&files, layer);
    const OpenModel model(files);
    std::vector<StepPlan> plans;
    for (uint64_t step = 0; step < 5; ++step) plans.push_back(EmptyPlan(step));
    SeatPrompt(&plans[0], 1, layer == 3 ? at_end : inside);
    SeatPrompt(&plans[0], 2, {4, 6, 5});
    for (const uint64_t step : {1, 2}) {
      for (const int32_t slot : {1, 2}) {
        plans[step].chunks.push_back({{slot}, DecodeRow{{step - 1}}, true});
      }
    }
    plans[3].releases = {{1}};
    SeatPrompt(&plans[3], 1, {8, 9});
    plans[3].chunks.push_back({{2}, DecodeRow{{2}}, true});
    for (const int32_t slot : {1, 2}) plans[4].chunks.push_back({{slot}, DecodeRow{{3}}, true});
    const Rows want = Group(model, {1, 1}, kernels::DType::kF16, false).TakeTurns(plans);
    for (size_t step = 0; step < plans.size(); ++step) {
      const RowFault fault = step < 3 ? RowFault::kNonFiniteLogits : RowFault::kNone;
      EXPECT_EQ(want[step][0].fault, fault) << "layer " << layer << ", step " << step;
      EXPECT_EQ(want[step][1].fault, RowFault::kNone) << "layer " << layer << ", step " << step;
    }
    const std::string what = fmt::format("layer {}", layer);
    ExpectSame(Group(model, {1, 2}, kernels::DType::kF16, true).TakeTurns(plans), want, what);
    if (Sanitized()) continue;
    ExpectSame(Group(model, {1, 2}, kernels::DType::kF16, false).RunAhead(plans), want, what);
  }
}

// The rows of the first stage never come.
TEST(StagesOnAGpu, AnAbortEndsTheWaitsOfAStage) {
  if (Sanitized()) GTEST_SKIP() << "a launch may wait for its end";
  const OpenModel model(FourLayers());
  std::vector<StepPlan> plans;
  for (int32_t i = 0; i < 4; ++i) {
    plans.push_back(EmptyPlan(static_cast<uint64_t>(i)));
    SeatPrompt(&plans.back(), 1 + i, {4, 5, 6});
  }
  Group group(model, {1, 2}, kBf16, false);
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  group.Epoch([&](Rank& rank) {
    std::unique_lock lock(mutex);
    if (rank.own_seat.rank == 0) return changed.wait(lock, [&] { return ended; });
    Engine engine(rank.device.get(), rank.own_seat);
    std::vector<SubmittedStep> steps(plans.size());
    StepStream stream;
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(engine.Submit(plans[i], &steps[i]).ok());
    rank.abort();
    for (size_t i = 0; i < 3; ++i) engine.Collect(steps[i], &stream);
    const absl::Status status = engine.Submit(plans[3], &steps[3]);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << ToString(status);
    rank.device->Drain();
    ended = true;
    changed.notify_all();
  });
}

}  // namespace
}  // namespace fathom::worker
