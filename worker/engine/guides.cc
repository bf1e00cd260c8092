#include "worker/engine/guides.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/log.h"

namespace fathom::worker {

struct Guides::Held {
  bool read = false;        // Guarded by mutex_.
  CompiledGrammar grammar;  // Null: the bytes are no grammar. Constant once `read` is set.
};

struct Guides::Guide {
  // Of the thread of the slot's lane:
  uint32_t admission = 0;                 // 0: no sequence.
  std::optional<GrammarMatcher> matcher;  // None: the grammar cannot be followed (any more).
  int32_t next = 0;                       // Position of the next token.
  // Guarded by mutex_; the mask is written before filled_for and not changed until Learn.
  uint32_t filled_admission = 0;
  int32_t filled_for = -1;  // The position whose mask is filled.
  bool over = false;        // A fault: there are no more masks.
  std::vector<uint32_t> mask;
};

Guides::Guides(const GrammarEngine* engine, int32_t slots, int threads)
    : engine_(*engine), lanes_(static_cast<size_t>(threads)) {
  FATHOM_CHECK(slots > 0 && threads > 0);
  for (int32_t i = 0; i <= slots; ++i) guides_.push_back(std::make_unique<Guide>());
  for (Lane& lane : lanes_) lane.thread = std::thread([this, &lane] { Serve(lane); });
}

Guides::~Guides() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (Lane& lane : lanes_) {
    lane.changed.notify_all();
    lane.thread.join();
  }
}

void Guides::Post(Lane& lane, std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    lane.work.push_back(std::move(work));
  }
  lane.changed.notify_one();
}

void Guides::Serve(Lane& lane) {
  std::unique_lock lock(mutex_);
  while (true) {
    lane.changed.wait(lock, [&] { return stopping_ || !lane.work.empty(); });
    if (stopping_) return;
    const std::function<void()> work = std::move(lane.work.front());
    lane.work.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

void Guides::Add(const GrammarRef& grammar) {
  auto held = std::make_shared<Held>();
  held_[grammar.digest()] = held;
  // A lane waits only for grammars that were added before its own work, so no two lanes wait for
  // each other.
  Post(LaneOf(std::hash<std::string>()(grammar.digest())), [this, held, grammar] {
    absl::StatusOr<CompiledGrammar> loaded = engine_.Load(grammar->bytes);
    if (!loaded.ok()) {
      LogError("grammar {:.12}: {}", grammar.digest(), ToString(loaded.status()));
    }
    {
      const std::lock_guard lock(mutex_);
      if (loaded.ok()) held->grammar = *std::move(loaded);
      held->read = true;
    }
    ready_.notify_all();
  });
}

void Guides::Drop(const std::string& digest) { held_.erase(digest); }

CompiledGrammar Guides::WaitFor(const Held& held) {
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [&] { return stopping_ || held.read; });
  return held.grammar;
}

absl::Status Guides::Admit(SlotId id, const Slot& slot, int32_t start,
                           std::span<const TokenId> ids) {
  const auto number = static_cast<size_t>(id.value);
  Guide& guide = *guides_[number];
  if (start == 0) {
    const auto held = held_.find(slot.grammar_digest);
    if (held == held_.end()) {
      return Invalid("an admit of slot {} names the grammar {:.12}, which no plan had", id.value,
                     slot.grammar_digest);
    }
    // Ids of a slot with a fault may be outside of the vocabulary.
    std::vector<TokenId> ends;
    if (slot.fault == RowFault::kNone) ends = slot.end_ids;
    Post(LaneOf(number), [this, &guide, held = held->second, admission = slot.admission,
                          ends = std::move(ends)]() mutable {
      guide.admission = admission;
      guide.next = 0;
      guide.matcher.reset();
      const CompiledGrammar grammar = WaitFor(*held);
      if (grammar && !ends.empty()) guide.matcher.emplace(grammar, std::move(ends));
      const std::lock_guard lock(mutex_);
      guide.filled_admission = admission;
      guide.filled_for = -1;
      guide.over = false;
    });
  }
  const auto skipped =
      std::min<size_t>(ids.size(), static_cast<size_t>(std::max(slot.prompt_tokens - start, 0)));
  Post(LaneOf(number), [this, &guide, admission = slot.admission, fill = !slot.more,
                        position = std::max(start - slot.prompt_tokens, 0),
                        generated = std::vector<TokenId>(
                            ids.begin() + static_cast<ptrdiff_t>(skipped), ids.end())] {
    Follow(guide, admission, position, generated, fill);
  });
  return absl::OkStatus();
}

void Guides::Release(SlotId id) {
  const auto number = static_cast<size_t>(id.value);
  Post(LaneOf(number), [&guide = *guides_[number]] {
    guide.admission = 0;
    guide.matcher.reset();
  });
}

void Guides::Learn(SlotId id, uint32_t admission, int32_t position, std::span<const TokenId> ids) {
  const auto number = static_cast<size_t>(id.value);
  Post(LaneOf(number), [this, &guide = *guides_[number], admission, position,
                        learned = std::vector<TokenId>(ids.begin(), ids.end())] {
    Follow(guide, admission, position, learned, /*fill=*/true);
  });
}

void Guides::Fail(SlotId id, uint32_t admission) {
  const auto number = static_cast<size_t>(id.value);
  Post(LaneOf(number), [this, &guide = *guides_[number], admission] {
    if (guide.admission != admission) return;
    {
      const std::lock_guard lock(mutex_);
      guide.over = true;
    }
    ready_.notify_all();
  });
}

// Runs in the slot's lane.
void Guides::Follow(Guide& guide, uint32_t admission, int32_t position,
                    std::span<const TokenId> ids, bool fill) {
  if (guide.admission != admission) return;  // The sequence has left the slot.
  for (const TokenId id : ids) {
    if (position++ != guide.next) {
      guide.matcher.reset();
      break;
    }
    ++guide.next;
    if (guide.matcher && !guide.matcher->Accept(id)) {
      LogError("token {} at position {} is against the grammar of its sequence", id,
               guide.next - 1);
      guide.matcher.reset();
    }
  }
  if (!fill) return;
  guide.mask.resize(GrammarMaskWords(engine_.vocab()));
  if (guide.matcher) {
    guide.matcher->FillMask(guide.mask);
  } else {
    std::ranges::fill(guide.mask, 0u);  // No token may come: the sequence ends with a fault.
  }
  {
    const std::lock_guard lock(mutex_);
    guide.filled_for = guide.next;
  }
  ready_.notify_all();
}

std::span<const uint32_t> Guides::MaskFor(const ChunkWork& chunk) {
  const Guide& guide = *guides_[static_cast<size_t>(chunk.id.value)];
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [&] {
    return guide.filled_admission == chunk.admission &&
           (guide.over || guide.filled_for >= chunk.position);
  });
  // After a fault the row is void, whatever is drawn.
  return guide.over ? std::span<const uint32_t>() : guide.mask;
}

}  // namespace fathom::worker
