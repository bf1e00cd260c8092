#include "router/sessions/session_stream.h"

#include <optional>
#include <utility>

namespace fathom::router {

void SessionStream::Begin(std::shared_ptr<Session> session) {
  bool cancelled = false;
  {
    std::lock_guard lock(mutex_);
    session_ = std::move(session);
    cancelled = cancelled_;
  }
  if (cancelled) return sessions_->HangUp(session_);
  sessions_->Submit(session_);
}

// Take returns an event to one thread at a time, so no two threads write.
void SessionStream::Wake() {
  if (const std::optional<ClientEvent> event = sessions_->Take(session_)) Write(*event);
}

void SessionStream::Written(bool ok) {
  sessions_->WriteDone(session_);
  if (!ok) return sessions_->HangUp(session_);  // Calls Wake once more.
  Wake();
}

void SessionStream::Cancelled() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (session_ == nullptr) return;  // Begin will see cancelled_.
  }
  sessions_->HangUp(session_);
}

void SessionStream::Closed() {
  if (session_ != nullptr) sessions_->Gone(session_);
}

}  // namespace fathom::router
