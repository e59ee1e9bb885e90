import { useRoomHeartbeat } from "reactor-presence/react";
import { Alert, router } from "./platform.jsx";
import { People, Typing } from "./People.jsx";

export function ChatScreen({ roomId, userId }) {
  useRoomHeartbeat(roomId, userId, (message) => {
    Alert.alert("You left the room", message);
    router.back();
  });

  return (
    <main>
      <header>
        <button className="back" aria-label="Back" onClick={() => router.back()}>
          ‹
        </button>
        <h1>{roomId}</h1>
      </header>
      <People roomId={roomId} userId={userId} />
      <Typing roomId={roomId} userId={userId} />
    </main>
  );
}
