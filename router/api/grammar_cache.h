// router/api/grammar_cache.h: the compiled grammars of guided requests, by content. A grammar that
// was compiled is kept, the least recently used ones up to a number of bytes, so that the requests
// of one application compile their schema once. Two calls with one new grammar compile it once.
// A compile cannot be stopped. Its time is bounded by the limits of what it gets
// (text/guided/grammar_spec.h), and the number of compiles at a time by the threads of the pool in
// which Get is called (router/api/work_pool.h).
// Thread: any; Get may take seconds.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "cluster/request.h"
#include "common/status.h"
#include "text/guided/grammar_engine.h"

namespace fathom::router {

class GrammarCache {
 public:
  // `engine` outlives the cache; null: this build, or this model's folder, has none.
  GrammarCache(const GrammarEngine* engine, size_t bytes_max)
      : engine_(engine), bytes_max_(bytes_max) {}

  // UNIMPLEMENTED (NO_GRAMMAR_ENGINE, `field`): there is no engine.
  absl::Status CheckEngine(const std::string& field) const;
  // Whether Get would not compile.
  bool Has(const GrammarSpec& spec) const;
  // Errors: those of CheckEngine and of GrammarEngine::Compile and Serialize, with `field`.
  absl::StatusOr<GrammarRef> Get(const GrammarSpec& spec, const std::string& field);

  struct Stats {
    uint64_t compiles_total = 0;
    uint64_t hits_total = 0;
    size_t bytes = 0;
    size_t grammars = 0;
  };
  Stats stats() const;

 private:
  struct Kept {
    GrammarRef grammar;  // None: a thread compiles it.
    std::list<std::string>::iterator place;
  };
  std::string DigestOf(const GrammarSpec& spec) const;
  absl::StatusOr<GrammarRef> Compile(const GrammarSpec& spec, const std::string& field,
                                     std::string digest) const;
  void DropOldest();

  const GrammarEngine* const engine_;
  const size_t bytes_max_;
  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable compiled_;
  absl::flat_hash_map<std::string, Kept> kept_;  // By digest.
  std::list<std::string> order_;                 // Digests of kept grammars, the oldest use first.
  Stats stats_;
};

}  // namespace fathom::router
