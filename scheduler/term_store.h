// scheduler/term_store.h: hands out terms, each higher than all earlier ones. A store decides
// nothing else: the peers decide which scheduler leads (docs/ARCHITECTURE.md, "Leadership").
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "common/types.h"

namespace fathom::scheduler {

class TermStore {
 public:
  virtual ~TermStore() = default;
  // Writes max(stored, reported) + 1 by compare-and-swap and returns it. UNAVAILABLE if the store
  // cannot be reached, RESOURCE_EXHAUSTED if there is no room to write, OUT_OF_RANGE if the numbers
  // are used up (a peer reported a wrong term).
  virtual absl::StatusOr<TermId> Take(TermId reported) = 0;
};

// A file with one decimal number, replaced under a lock on `path`.lock. Any number of processes of
// one host may share it. The number is durable when Take returns. On a full disk only the Take that
// creates the file fails. Thread: any; a call waits at most 5 s for other processes.
std::unique_ptr<TermStore> MakeFileTermStore(std::string path);

// No file: terms start at 1. For a scheduler whose peers all end with it.
std::unique_ptr<TermStore> MakeMemoryTermStore();

}  // namespace fathom::scheduler
