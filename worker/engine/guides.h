// worker/engine/guides.h: follows the outputs of guided sequences beside the steps. For each slot
// with a grammar it has a matcher (text/guided/grammar_engine.h), which advances by the tokens of
// the collected steps, and the mask of the next sample. The state of a matcher is a function of the
// grammar and of the sequence's tokens, so a replay in another group has the same masks.
// Only ranks of the last stage sample, so only they have Guides, one for each epoch.
// Threads: the engine thread calls all methods but Learn and Fail, which the thread that collects
// calls. Grammars are read, and masks are filled, by threads of this object, in the order of the
// calls for each slot: while the next step computes, so that its sampler rarely waits.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "text/guided/grammar_engine.h"
#include "worker/engine/device.h"
#include "worker/engine/slots.h"

namespace fathom::worker {

class Guides final : public MaskSource {
 public:
  // `engine` outlives this object. REQUIRES: slots > 0, threads > 0; engine->vocab() is the
  // model's vocabulary.
  Guides(const GrammarEngine* engine, int32_t slots, int threads);
  ~Guides() override;

  // The workers hold the grammar from now on, until Drop.
  void Add(const GrammarRef& grammar);
  void Drop(const std::string& digest);

  // The next ids of an admit: those from slot.prompt_tokens on were generated. `start`: the index
  // of ids[0] in the sequence; 0 begins a sequence. INVALID_ARGUMENT: the grammar is not held.
  // REQUIRES: the slot has a grammar.
  absl::Status Admit(SlotId id, const Slot& slot, int32_t start, std::span<const TokenId> ids);
  void Release(SlotId id);

  // The sequence of this admission got `ids` from `position` on; or no id, because of a fault.
  void Learn(SlotId id, uint32_t admission, int32_t position, std::span<const TokenId> ids);
  void Fail(SlotId id, uint32_t admission);

  // Waits until the tokens before the chunk's position are learned and the mask is filled.
  std::span<const uint32_t> MaskFor(const ChunkWork& chunk) override;

 private:
  struct Held;   // A grammar.
  struct Guide;  // A slot.
  struct Lane {  // A thread and the work of the slots that are its own.
    std::deque<std::function<void()>> work;
    std::condition_variable changed;
    std::thread thread;
  };

  Lane& LaneOf(size_t number) { return lanes_[number % lanes_.size()]; }
  void Post(Lane& lane, std::function<void()> work);
  void Serve(Lane& lane);
  CompiledGrammar WaitFor(const Held& held);
  void Follow(Guide& guide, uint32_t admission, int32_t position, std::span<const TokenId> ids,
              bool fill);

  const GrammarEngine& engine_;
  std::mutex mutex_;  // Guards the work of the lanes and what is marked below.
  std::condition_variable ready_;
  bool stopping_ = false;
  std::map<std::string, std::shared_ptr<Held>> held_;  // Engine thread.
  std::vector<std::unique_ptr<Guide>> guides_;         // [slots + 1]
  std::vector<Lane> lanes_;
};

}  // namespace fathom::worker
