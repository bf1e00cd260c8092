// scheduler/transport/completion.h: an entry of the completion queue. A tag is a pointer to a
// Completion.
#pragma once

namespace fathom::scheduler {

class Completion {
 public:
  virtual ~Completion() = default;
  // The operation has ended; `ok` has gRPC's meaning. May delete this object. Thread: the driver's.
  virtual void Done(bool ok) = 0;
};

// Calls a member function of its owner.
template <class Owner>
class MemberCompletion final : public Completion {
 public:
  MemberCompletion(Owner* owner, void (Owner::*done)(bool)) : owner_(owner), done_(done) {}
  void Done(bool ok) override { (owner_->*done_)(ok); }

 private:
  Owner* const owner_;
  void (Owner::*const done_)(bool);
};

}  // namespace fathom::scheduler
