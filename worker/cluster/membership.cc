#include "worker/cluster/membership.h"

#include <utility>

namespace fathom::worker {

void Membership::EndLocked(const absl::Status& reason) {
  if (current_) current_->Abort(reason);
  current_.reset();
}

TermVerdict Membership::Hear(TermId term) {
  std::lock_guard lock(mutex_);
  const TermId before = term_.term();
  const TermVerdict verdict = term_.Hear(term);
  if (term_.term() > before) {
    EndLocked(Aborted("a scheduler leads with the higher term {}", term.value));
  }
  return verdict;
}

TermId Membership::term() const {
  std::lock_guard lock(mutex_);
  return term_.term();
}

void Membership::Join(const GroupSeat& seat, int source) {
  {
    std::lock_guard lock(mutex_);
    EndLocked(Aborted("epoch {} follows", seat.epoch.value));
    if (closed_ || seat.term != term_.term()) return;
    current_ = std::make_shared<Epoch>(seat, source);
    taken_ = false;
  }
  changed_.notify_all();
}

void Membership::PushExchange(EpochId epoch, Epoch::Exchange exchange) {
  std::lock_guard lock(mutex_);
  if (current_ && current_->seat().epoch == epoch) current_->PushExchange(std::move(exchange));
}

void Membership::Abort(TermId term, EpochId epoch, const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (!current_ || current_->seat().term != term || current_->seat().epoch != epoch) return;
  EndLocked(Aborted("the scheduler ended epoch {}: {}", epoch.value, reason));
}

void Membership::Lose(int source, const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (current_ && current_->source() == source) EndLocked(Unavailable("{}", reason));
}

void Membership::Close() {
  {
    std::lock_guard lock(mutex_);
    EndLocked(Cancelled("the worker leaves"));
    closed_ = true;
  }
  changed_.notify_all();
}

std::shared_ptr<Epoch> Membership::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return closed_ || (current_ && !taken_); });
  if (closed_) return nullptr;
  taken_ = true;
  return current_;
}

}  // namespace fathom::worker
