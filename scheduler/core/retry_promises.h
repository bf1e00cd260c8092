// scheduler/core/retry_promises.h: the refusals of one limit. A request that is refused because a
// limit is full is told when to try again, and a place is promised to it for then, so that a client
// that obeys is admitted. Pure: time is an argument. Thread: the owner's.
//
// A limit counts units (requests, or tokens), of which `max` may be used. The class measures how
// fast units become free while some are used (DrainRate), and gives the refused requests
// consecutive places in a virtual line. A place belongs to the key of the request, so a client must
// repeat its request under the same id (the client library does). Places of clients that do not
// come back expire. They never keep the cluster idle: a quarter of the units is there for anyone.
#pragma once

#include <cstdint>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "cluster/request.h"
#include "common/types.h"

namespace fathom::scheduler {

// How fast units become free: a mean over about 10 s of the time in which some were used.
class DrainRate {
 public:
  // `default_us_per_unit` counts as one unit that was measured.
  explicit DrainRate(double default_us_per_unit) : default_us_(default_us_per_unit) {}

  // `used` units are used from `now` on, `freed` of those before are not any more.
  void Note(int64_t used, int64_t freed, TimeUs now);
  double UsPerUnit() const { return (time_us_ + default_us_) / (units_ + 1); }

 private:
  static constexpr double kMeanUs = 10'000'000;
  double default_us_;
  double units_ = 0;
  double time_us_ = 0;  // With used units, at most kMeanUs.
  bool used_ = false;
  TimeUs since_us_ = 0;
};

class RetryPromises {
 public:
  explicit RetryPromises(double default_us_per_unit) : rate_(default_us_per_unit) {}

  // See DrainRate.
  void Note(int64_t used, int64_t freed, TimeUs now) { rate_.Note(used, freed, now); }
  double UsPerUnit() const { return rate_.UsPerUnit(); }

  // Whether the request may take `amount` units, of which `used` of `max` are used. A request is
  // always admitted if none is used, because it could never be otherwise if it asks for more than
  // `max`.
  bool Admits(const SessionKey& key, int64_t used, int64_t amount, int64_t max, TimeUs now);
  // The delay in ms for the request that is refused now. If it is the first of the line, its place
  // is free in about `wait_us`; the place after it is free `hold_us` later.
  int64_t Refuse(const SessionKey& key, int64_t amount, int64_t wait_us, int64_t hold_us,
                 TimeUs now);
  // The request was admitted. Its promise, if it had one, is kept.
  void Take(const SessionKey& key);

  struct Counts {
    uint64_t kept = 0;    // Requests that came back in time and were admitted.
    uint64_t broken = 0;  // That came back in time and were refused again.
  };
  const Counts& counts() const { return counts_; }
  bool empty() const { return promises_.empty(); }

 private:
  static constexpr size_t kPromisesMax = 16'384;
  static constexpr int64_t kAheadMaxUs = 120'000'000;  // No place is promised beyond this time.
  static constexpr int64_t kGraceUs = 2'000'000;
  static constexpr int64_t kBurstUs = 200'000;
  static constexpr int64_t kOpenPart = 4;
  struct Promise {
    TimeUs due_us = 0;
    TimeUs expires_us = 0;
    int64_t amount = 0;
    int64_t hold_us = 0;
  };
  using Promises = absl::flat_hash_map<SessionKey, Promise>;

  void Expire(TimeUs now);
  void Drop(Promises::iterator promise);

  DrainRate rate_;
  Promises promises_;
  std::set<std::pair<TimeUs, SessionKey>> expiries_;
  int64_t promised_ = 0;  // Units, over all promises.
  TimeUs end_us_ = 0;     // When the place after the last one of the line is free.
  uint64_t refused_ = 0;
  Counts counts_;
};

}  // namespace fathom::scheduler
