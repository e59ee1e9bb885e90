import { router } from "./platform.jsx";

export const RoomList = ({ userId }) => (
  <main>
    <header>
      <h1>Rooms</h1>
      <span className="note">You are {userId}</span>
    </header>
    <ul className="rooms">
      {["lobby", "kitchen", "brief-talk"].map((roomId) => (
        <li key={roomId}>
          <button onClick={() => router.push(roomId)}>{roomId}</button>
        </li>
      ))}
    </ul>
  </main>
);
