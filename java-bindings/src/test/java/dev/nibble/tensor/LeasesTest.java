// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.ConcurrentUseException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class LeasesTest {
  private final Leases leases = new Leases("the thing");

  @Test
  void closesOnceAndRefusesAfterwards() {
    leases.acquire();
    leases.release();
    assertThat(leases.isClosed()).isFalse();
    assertThat(leases.close()).isTrue();
    assertThat(leases.close()).isFalse();
    assertThat(leases.isClosed()).isTrue();
    assertThatThrownBy(leases::acquire).isInstanceOf(ClosedException.class)
        .hasMessage("the thing is closed");
    assertThatThrownBy(leases::acquireExclusive).isInstanceOf(ClosedException.class);
  }

  @Test
  void sharedLeasesExcludeTheExclusiveOne() {
    leases.acquire();
    leases.acquire();
    assertThatThrownBy(leases::acquireExclusive).isInstanceOf(ConcurrentUseException.class);
    leases.release();
    assertThatThrownBy(leases::acquireExclusive).isInstanceOf(ConcurrentUseException.class);
    leases.release();
    leases.acquireExclusive();
    assertThatThrownBy(leases::acquire).isInstanceOf(ConcurrentUseException.class)
        .hasMessageContaining("inside its own callback");
    leases.releaseExclusive();
    leases.acquire();
  }

  @Test
  void ownerCannotCloseUnderItself() {
    leases.acquireExclusive();
    assertThatThrownBy(leases::close).isInstanceOf(ConcurrentUseException.class);
    leases.releaseExclusive();
    assertThat(leases.close()).isTrue();
  }

  @Test
  void closeWaitsForEveryLease() throws Exception {
    leases.acquire();
    leases.acquire();
    var closing = CompletableFuture.supplyAsync(leases::close);
    while (!leases.isClosed()) {
      Thread.onSpinWait();
    }
    leases.release();
    Thread.sleep(20);
    assertThat(closing).isNotDone();
    leases.release();
    assertThat(closing.get(10, TimeUnit.SECONDS)).isTrue();
  }

  @Test
  void exclusiveLeaseIsHeldByOneThreadAtATime() throws Exception {
    var inside = new AtomicInteger();
    var entered = new AtomicInteger();
    Runnable work = () -> {
      for (int i = 0; i < 20_000; i++) {
        try {
          leases.acquireExclusive();
        } catch (ConcurrentUseException e) {
          continue;
        }
        if (inside.incrementAndGet() != 1) {
          throw new AssertionError("two owners");
        }
        entered.incrementAndGet();
        inside.decrementAndGet();
        leases.releaseExclusive();
      }
    };
    var other = CompletableFuture.runAsync(work);
    work.run();
    other.get(30, TimeUnit.SECONDS);
    assertThat(entered.get()).isPositive();
    assertThat(leases.close()).isTrue();
  }
}
