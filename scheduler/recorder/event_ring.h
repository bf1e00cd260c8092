// scheduler/recorder/event_ring.h: the last events that the core was given, one line each, for the
// log of a scheduler that ends by a failed FATHOM_CHECK. It is always on, and has ids and numbers
// but no token of a prompt or an answer. (A recording, scheduler/recorder/recording.h, has
// everything and can be replayed.) Thread: Note: the driver's; Dump: any, also while Note runs: it
// leaves out the entry that is being written.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "scheduler/core/events.h"

namespace fathom::scheduler {

class EventRing {
 public:
  static constexpr size_t kEvents = 256;

  // Allocates nothing. Called before the core gets the event.
  void Note(const Event& event, TimeUs now);

  // Writes the events to a file descriptor, the oldest first. Allocates nothing and takes no lock,
  // because it runs when the process has a fault.
  void Dump(int descriptor) const;

  // From now on a failed FATHOM_CHECK of the process dumps this ring to stderr. The ring must
  // outlive the last check.
  void DumpOnFailedCheck() const;

 private:
  static constexpr size_t kLineBytes = 160;
  struct Entry {
    size_t bytes = 0;
    std::array<char, kLineBytes> line = {};
  };
  std::array<Entry, kEvents> entries_;
  std::atomic<uint64_t> noted_{0};
};

}  // namespace fathom::scheduler
