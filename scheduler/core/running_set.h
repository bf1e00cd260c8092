// scheduler/core/running_set.h: the sequences in the slots of a group, ordered by the key by which
// they are preempted: the last one first. A sorted array, because each step visits all of them and
// few come or go. Erasing the last one keeps the iterators before it valid. Thread: the driver
// thread.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

class RunningSet {
 public:
  using Entry = std::pair<OrderKey, Sequence*>;  // Keys differ, so no order depends on a pointer.
  using const_iterator = std::vector<Entry>::const_iterator;

  // REQUIRES: no entry has the key.
  void Insert(const OrderKey& key, Sequence* sequence) {
    entries_.insert(At(key), {key, sequence});
  }
  // False: there is no such entry.
  bool Erase(const OrderKey& key) {
    const const_iterator at = At(key);
    if (at == entries_.end() || at->first != key) return false;
    entries_.erase(at);
    return true;
  }

  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }
  const Entry& back() const { return entries_.back(); }
  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }

 private:
  const_iterator At(const OrderKey& key) const {
    return std::lower_bound(
        entries_.begin(), entries_.end(), key,
        [](const Entry& entry, const OrderKey& of) { return entry.first < of; });
  }
  std::vector<Entry> entries_;
};

}  // namespace fathom::scheduler
