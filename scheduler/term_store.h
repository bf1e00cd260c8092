// scheduler/term_store.h: hands out terms, each higher than any before. A store decides nothing
// else: who leads is decided by the peers (docs/ARCHITECTURE.md, "Leadership").
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "common/types.h"

namespace fathom::scheduler {

class TermStore {
 public:
  virtual ~TermStore() = default;
  // Writes max(stored, reported) + 1 by compare-and-swap and returns it. UNAVAILABLE when the store
  // cannot be reached, RESOURCE_EXHAUSTED when there is no room to write, OUT_OF_RANGE when the
  // numbers are used up (a peer that reports nonsense).
  virtual absl::StatusOr<TermId> Take(TermId reported) = 0;
};

// A file with one decimal number, replaced under a lock on `path`.lock: any number of processes of
// one host may share it. Durable when Take returns. On a full disk only the first Take fails, that
// which makes the file. Thread: any; waits at most 5 s for other processes' Take.
std::unique_ptr<TermStore> MakeFileTermStore(std::string path);

// Without a file: terms from 1, for a scheduler whose peers all end with it.
std::unique_ptr<TermStore> MakeMemoryTermStore();

}  // namespace fathom::scheduler
